//! `fetch --to`: from a cache in the target directory to plain files in it.

use crate::failure::Outcome;
use ringload::{CacheAdmin, CacheEntry, CacheSize, CacheValidate, Checkpoint, Error, ErrorKind};
use ringload::{Loader, Location};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Where what is not complete is kept, in the target.
const HIDDEN: &str = ".ringload-fetch";
const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The directory that files are put into.
pub struct Target {
    directory: PathBuf,
}

/// A file on its way.
struct Source {
    from: PathBuf,
    /// Whether `from` is to stay where it is.
    copy: bool,
    location: String,
}

impl Target {
    /// The directory, made if need be.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn new(directory: PathBuf) -> Outcome<Self> {
        fs::create_dir_all(&directory).map_err(|cause| failed("make", &directory, cause))?;
        Ok(Self { directory })
    }

    /// `loader` with the cache in the target.
    pub fn cache_of(&self, loader: Loader) -> Loader {
        loader
            .cache_dir(self.hidden())
            .cache_size(CacheSize::Unlimited)
            .cache_validate(CacheValidate::Always)
    }

    fn hidden(&self) -> PathBuf {
        self.directory.join(HIDDEN)
    }

    /// Puts the files of `checkpoint`, which are all in the cache or local, into place; gives their
    /// paths.
    ///
    /// # Errors
    /// When two have one name, one is not there, or the directory cannot be written.
    pub fn place(&self, checkpoint: &Checkpoint) -> Outcome<Vec<String>> {
        let entries = match CacheAdmin::open(self.hidden()) {
            Ok(admin) => admin.entries(),
            Err(_) => Vec::new(), // all of it is local
        };
        let files = plan(checkpoint, entries)?;
        let mut placed = Vec::with_capacity(files.len());
        for (name, source) in &files {
            let to = self.directory.join(name);
            self.put(source, &to).map_err(|cause| failed("write", &to, cause))?;
            placed.push(to.display().to_string());
        }
        let sync = File::open(&self.directory).and_then(|directory| directory.sync_all());
        sync.map_err(|cause| failed("write", &self.directory, cause))?;
        self.tidy(&files);
        Ok(placed)
    }

    fn put(&self, source: &Source, to: &Path) -> io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        if !source.copy {
            return fs::rename(&source.from, to);
        }
        let aside = self.hidden().join("copy");
        fs::create_dir_all(self.hidden())?;
        fs::copy(&source.from, &aside)?;
        File::open(&aside)?.sync_all()?;
        fs::rename(&aside, to)
    }

    /// Removes what is left in the cache of what was placed, and all of it if nothing else is there.
    fn tidy(&self, files: &BTreeMap<PathBuf, Source>) {
        let is_placed =
            |directory: &Path| files.values().any(|file| file.from.starts_with(directory));
        let directories = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        let mut others = 0;
        for place in directories(&self.hidden()) {
            if place.file_name() == Some(OsStr::new("listings")) {
                continue;
            }
            for entry in directories(&place) {
                match is_placed(&entry) {
                    true => drop(fs::remove_dir_all(&entry)),
                    false => others += 1,
                }
            }
        }
        if others == 0 {
            // What is left of it is in nobody's way.
            let _ = fs::remove_dir_all(self.hidden());
        }
    }
}

/// Which files come from where, by their paths in the target.
fn plan(checkpoint: &Checkpoint, entries: Vec<CacheEntry>) -> Outcome<BTreeMap<PathBuf, Source>> {
    let indexes: Vec<_> = entries
        .iter()
        .filter(|entry| entry.is_complete && entry.location.ends_with(INDEX_SUFFIX))
        .collect();
    let bases: Vec<_> =
        indexes.iter().filter_map(|index| Some(index.location.rsplit_once('/')?.0)).collect();
    let mut files = BTreeMap::new();
    let mut add = |name: PathBuf, source: Source| match files.insert(name, source) {
        None => Ok(()),
        Some(other) => {
            let sentence = format!(
                "two files have the name of {}; fetch them to different directories",
                other.location
            );
            Err(Error::new(ErrorKind::InvalidInput, sentence))
        }
    };
    for shard in checkpoint.shards() {
        let location = shard.location().to_string();
        match shard.location() {
            Location::File(path) => {
                let name = path.file_name().map(PathBuf::from).unwrap_or_default();
                add(name, Source { from: path.clone(), copy: true, location })?;
            }
            _ => {
                let entry = entries.iter().find(|entry| entry.location == location);
                let Some(entry) = entry.filter(|entry| entry.is_complete) else {
                    let sentence = format!("{location} was not fetched whole; fetch it again");
                    return Err(Error::new(ErrorKind::Io, sentence).into());
                };
                let source = Source { from: entry.path.clone(), copy: false, location };
                add(name_of(&source.location, &bases), source)?;
            }
        }
    }
    for index in indexes {
        let (from, location) = (index.path.clone(), index.location.clone());
        add(name_of(&location, &bases), Source { from, copy: false, location })?;
    }
    let local: Vec<PathBuf> = checkpoint.shards().iter().filter_map(local_index).collect();
    for from in local {
        let name = from.file_name().map(PathBuf::from).unwrap_or_default();
        let location = from.display().to_string();
        files.entry(name).or_insert(Source { from, copy: true, location });
    }
    Ok(files)
}

/// The index beside a local shard.
fn local_index(shard: &ringload::Shard) -> Option<PathBuf> {
    let Location::File(path) = shard.location() else { return None };
    let index = path.parent()?.join("model.safetensors.index.json");
    index.is_file().then_some(index)
}

/// The path in the target of what is at `location`: below an index's directory as there, else its
/// name.
fn name_of(location: &str, bases: &[&str]) -> PathBuf {
    let below = |base: &&str| location.strip_prefix(base)?.strip_prefix('/');
    let last = location.rsplit('/').next().unwrap_or(location);
    let name = bases.iter().find_map(below).unwrap_or(last);
    let name = name.strip_suffix("?...").unwrap_or(name);
    let is_url = location.starts_with("http://") || location.starts_with("https://");
    let name = if is_url { decoded(name) } else { name.to_owned() };
    let path = Path::new(&name);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    // What would lead out of the target is called as it is written.
    if stays { path.to_owned() } else { PathBuf::from(name.replace('/', "_").replace("..", "_")) }
}

/// The text that `%41` and the like in `name` stand for; as it is, where that is no text.
fn decoded(name: &str) -> String {
    match Location::parse(&format!("file:///{name}")) {
        Ok(Location::File(path)) => {
            path.to_str().and_then(|path| path.strip_prefix('/')).unwrap_or(name).to_owned()
        }
        _ => name.to_owned(),
    }
}

fn failed(doing: &str, path: &Path, cause: io::Error) -> Error {
    Error::from_io(format_args!("{doing} {}", path.display()), cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_stay_in_the_target() {
        let name = |location: &str, bases: &[&str]| name_of(location, bases).display().to_string();
        assert_eq!(name("s3://b/dir/a%20.safetensors", &[]), "a%20.safetensors");
        assert_eq!(name("https://h/dir/a%20b.safetensors?...", &[]), "a b.safetensors");
        assert_eq!(name("s3://b/dir/sub/a.safetensors", &["s3://b/dir"]), "sub/a.safetensors");
        assert_eq!(name("s3://b/dir/../a.safetensors", &["s3://b/dir"]), "__a.safetensors");
        assert_eq!(name("https://h/%2e%2e%2fa.safetensors", &[]), "__a.safetensors");
        assert_eq!(name("https://h/%2fetc%2fa.safetensors", &[]), "_etc_a.safetensors");
    }
}
