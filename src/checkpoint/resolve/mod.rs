//! From what the user named to the files of the shards.
//!
//! | named | read |
//! | --- | --- |
//! | a file | that file |
//! | a file named `*.safetensors.index.json` | the files it names, sorted |
//! | a directory | its `model.safetensors.index.json`, else its only index, else its `*.safetensors` files, sorted |
//! | a path with `*`, `?` or `[` that does not exist | everything it matches, sorted, each as if it had been named |
//!
//! Directories are not searched below their first level, and names that begin with a dot are left
//! out of directories and patterns, as a shell does. Patterns match names that are UTF-8. A file
//! that is named twice, in whatever way (also through symbolic links), counts once, at its first
//! place: `dir dir/a.safetensors` is `dir`.
//!
//! Whether a file exists and may be read is found out when it is opened.

use super::index::{self, Index};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const PREFERRED_INDEX: &str = "model.safetensors.index.json";

/// The files of a checkpoint.
#[derive(Default)]
pub(super) struct Files {
    /// Each shard's file, once.
    pub(super) shards: Vec<ShardFile>,
    pub(super) indexes: Vec<IndexFile>,
    /// The canonical path of each file, and its position in `shards`.
    known: HashMap<PathBuf, usize>,
}

/// The file of a shard.
pub(super) struct ShardFile {
    pub(super) location: Location,
    /// The index that named it first (a position in [`Files::indexes`]) and its position there.
    pub(super) named_by: Option<(usize, usize)>,
}

/// An index and, for each position in it, the position in [`Files::shards`].
pub(super) struct IndexFile {
    pub(super) index: Index,
    pub(super) shards: Vec<usize>,
}

/// The files that `locations` name.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) for a directory without safetensors files and a pattern that
/// matches nothing, [`InvalidInput`](ErrorKind::InvalidInput) for no location at all and a
/// malformed pattern; else those of reading directories and indexes.
pub(super) fn resolve(locations: &[Location]) -> Result<Files> {
    if locations.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "no location was given; name a file, a directory or an index",
        ));
    }
    let mut files = Files::default();
    for location in locations {
        let Location::File(path) = location else {
            files.add_object(location.clone());
            continue;
        };
        match pattern(path) {
            None => files.add(path)?,
            Some(pattern) => {
                for path in matches(pattern)? {
                    files.add(&path)?;
                }
            }
        }
    }
    Ok(files)
}

impl Files {
    /// Adds what `path` names.
    fn add(&mut self, path: &Path) -> Result<()> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.add_directory(path),
            Ok(metadata) if metadata.is_file() && has_suffix(path.as_os_str(), index::SUFFIX) => {
                self.add_index(path)
            }
            // Opening it says what is wrong with it.
            _ => {
                self.add_shard(path.to_path_buf(), None);
                Ok(())
            }
        }
    }

    fn add_directory(&mut self, directory: &Path) -> Result<()> {
        let names = names_in(directory)?;
        if let Some(index) = choose_index(&names) {
            return self.add_index(&directory.join(index));
        }
        let shards: Vec<_> = names.iter().filter(|name| has_suffix(name, ".safetensors")).collect();
        if shards.is_empty() {
            let sentence = format!(
                "no *.safetensors file in the directory {}; name the directory that holds the \
                 checkpoint, or its files",
                directory.display()
            );
            return Err(Error::new(ErrorKind::NotFound, sentence));
        }
        for name in shards {
            self.add_shard(directory.join(name), None);
        }
        Ok(())
    }

    fn add_index(&mut self, path: &Path) -> Result<()> {
        let index = Index::read(path)?;
        let number = self.indexes.len();
        let files = index.files();
        let mut shards = vec![0; files.len()];
        for (path, position) in files {
            shards[position] = self.add_shard(path, Some((number, position)));
        }
        self.indexes.push(IndexFile { index, shards });
        Ok(())
    }

    fn add_object(&mut self, location: Location) {
        self.shards.push(ShardFile { location, named_by: None });
    }

    /// The position of the shard in `path`, added if it is not there yet.
    fn add_shard(&mut self, path: PathBuf, named_by: Option<(usize, usize)>) -> usize {
        // A path that cannot be followed is its own identity; opening it says why.
        let identity = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        *self.known.entry(identity).or_insert_with(|| {
            self.shards.push(ShardFile { location: path.into(), named_by });
            self.shards.len() - 1
        })
    }
}

/// Whether `name` ends with `suffix` and has something in front of it.
fn has_suffix(name: &OsStr, suffix: &str) -> bool {
    name.len() > suffix.len() && name.as_bytes().ends_with(suffix.as_bytes())
}

/// The names in `directory` of what is neither hidden nor a directory, sorted by their bytes.
fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    let fail =
        |cause| Error::from_io(format_args!("list the directory {}", directory.display()), cause);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory && !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The preferred index among `names`, else the only one.
fn choose_index(names: &[OsString]) -> Option<&OsString> {
    if let Some(preferred) = names.iter().find(|name| *name == PREFERRED_INDEX) {
        return Some(preferred);
    }
    let mut indexes = names.iter().filter(|name| has_suffix(name, index::SUFFIX));
    let first = indexes.next();
    if indexes.next().is_some() { None } else { first }
}

/// `path` as text if it is a pattern: it does not exist and holds a character of patterns.
fn pattern(path: &Path) -> Option<&str> {
    let text = path.to_str().filter(|text| text.contains(['*', '?', '[']))?;
    let error = fs::symlink_metadata(path).err()?;
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
    .then_some(text)
}

/// What `pattern` matches, sorted.
fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let found = glob::glob_with(pattern, options).map_err(|cause| {
        let sentence = format!("{pattern:?} does not exist, and as a pattern it is malformed");
        Error::new(ErrorKind::InvalidInput, sentence).with_source(cause)
    })?;
    let paths: std::result::Result<Vec<PathBuf>, glob::GlobError> = found.collect();
    let mut paths = paths.map_err(|error| {
        let directory = error.path().display().to_string();
        Error::from_io(format_args!("list {directory} for {pattern:?}"), error.into())
    })?;
    if paths.is_empty() {
        let sentence = format!("nothing matches the pattern {pattern:?}; check the path");
        return Err(Error::new(ErrorKind::NotFound, sentence));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
