//! Lists a directory of the file system or of a store.

use super::loader::Loader;
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri};
use crate::source::ListDepth;
use std::fs;
use std::path::{Path, PathBuf};

/// A file or object that was found in a directory.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use ringload::{Loader, Location};
///
/// for listed in Loader::new().list(&Location::parse("s3://bucket/models/")?, true)? {
///     println!("{}: {} bytes", listed.location, listed.len_bytes);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The location of the file or object.
    pub location: Location,
    /// The length of the file or object in bytes.
    pub len_bytes: u64,
}

impl Loader {
    /// Lists the files or objects in `directory`, sorted by location; with `recursive`, also those in
    /// its subdirectories.
    ///
    /// Symbolic links to files count as files. Links to directories are not followed, except
    /// `directory` itself.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where there is no such directory,
    /// [`Unsupported`](ErrorKind::Unsupported) where a server does not list directories; otherwise the
    /// error of the store or the file system.
    pub fn list(&self, directory: &Location, recursive: bool) -> Result<Vec<Listed>> {
        let mut listed = match directory {
            Location::File(path) => files(path, recursive)?,
            Location::Object(uri) => self.objects(&uri.as_directory(), recursive)?,
        };
        listed.sort_by_cached_key(|listed| listed.location.to_string());
        Ok(listed)
    }

    fn objects(&self, directory: &ObjectUri, recursive: bool) -> Result<Vec<Listed>> {
        let depth = if recursive { ListDepth::Tree } else { ListDepth::Directory };
        let Some(entries) = self.opener.renewed().entries(directory, depth)? else {
            let sentence =
                format!("the server of {directory} does not list directories; name the files");
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        };
        let listed = entries.into_iter().map(|entry| Listed {
            location: Location::Object(directory.join(&entry.name)),
            len_bytes: entry.len_bytes,
        });
        Ok(listed.collect())
    }
}

fn files(directory: &Path, recursive: bool) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let mut ahead: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = ahead.pop() {
        let fail = |cause| {
            Error::from_io(format_args!("list the directory {}", directory.display()), cause)
        };
        for entry in fs::read_dir(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(fail)?);
            if kind.is_dir() {
                ahead.extend(recursive.then_some(path));
                continue;
            }
            // Broken links, and files that were removed meanwhile, are left out.
            let about = fs::metadata(&path).ok().filter(fs::Metadata::is_file);
            listed.extend(
                about
                    .map(|about| Listed { location: Location::File(path), len_bytes: about.len() }),
            );
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn directories_are_listed_with_their_links_to_files() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("sub/deep")).unwrap();
        for (name, bytes) in [("b", 1), (".hidden", 2), ("sub/a", 3), ("sub/deep/c", 4)] {
            fs::write(at(name), vec![0; bytes]).unwrap();
        }
        symlink(at("sub/a"), at("link")).unwrap();
        symlink(at("sub"), at("round")).unwrap();
        symlink(at("nothing"), at("broken")).unwrap();
        let list = |name: &str, recursive| {
            let listed = Loader::new().list(&Location::from(at(name)), recursive).unwrap();
            let names = listed.into_iter().map(|listed| {
                let Location::File(path) = listed.location else { panic!("{listed:?}") };
                let name = path.strip_prefix(directory.path()).unwrap().to_owned();
                (name.to_str().unwrap().to_owned(), listed.len_bytes)
            });
            names.collect::<Vec<_>>()
        };
        let owned = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
            pairs.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
        };
        assert_eq!(list("", false), owned(&[(".hidden", 2), ("b", 1), ("link", 3)]));
        let all = [(".hidden", 2), ("b", 1), ("link", 3), ("sub/a", 3), ("sub/deep/c", 4)];
        assert_eq!(list("", true), owned(&all));
        assert_eq!(list("round", true), owned(&[("round/a", 3), ("round/deep/c", 4)]));
        for (name, kind) in [("nothing", ErrorKind::NotFound), ("b", ErrorKind::NotFound)] {
            let error = Loader::new().list(&Location::from(at(name)), true).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
