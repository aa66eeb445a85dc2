//! The files of a checkpoint, as resolving the locations collects them.

use super::file_name;
use super::selection::{DirectorySelection, check_variant, is_index, select, usual_names};
use crate::checkpoint::index::Index;
use crate::error::{Error, ErrorKind, Result, option};
use crate::location::{Location, ObjectUri};
use crate::options::CheckpointOptions;
use crate::source::Opener;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;

/// The files of a checkpoint.
pub(in crate::checkpoint) struct Files {
    pub(super) options: CheckpointOptions,
    /// The file of each shard, without repetitions.
    pub(in crate::checkpoint) shards: Vec<ShardFile>,
    pub(in crate::checkpoint) indexes: Vec<IndexFile>,
    /// The safetensors files of directories that are not read.
    pub(in crate::checkpoint) left_out: Vec<Location>,
    /// The position of each file in `shards`. Local files are known by their canonical paths.
    known: HashMap<Location, usize>,
}

/// The file of a shard.
pub(in crate::checkpoint) struct ShardFile {
    pub(in crate::checkpoint) location: Location,
    named_by: ShardNamedBy,
}

/// The origin of a shard's location.
pub(super) enum ShardNamedBy {
    /// The user named the shard, or it was found in a directory.
    User,
    /// The first index that names the shard, as a position in [`Files::indexes`], and the shard's
    /// position in that index.
    Index(usize, usize),
    /// The shard has the usual name in this directory, which cannot be listed.
    Directory(Location),
}

/// An index and, for each position in it, the position in [`Files::shards`].
pub(in crate::checkpoint) struct IndexFile {
    pub(in crate::checkpoint) index: Index,
    pub(in crate::checkpoint) shards: Vec<usize>,
}

impl Files {
    pub(super) fn new(options: CheckpointOptions) -> Self {
        let (shards, indexes, left_out) = (Vec::new(), Vec::new(), Vec::new());
        Self { options, shards, indexes, left_out, known: HashMap::new() }
    }

    /// Adds to `error`, with which shard `number` failed to open, the reason why the shard was
    /// expected.
    pub(in crate::checkpoint) fn explain(&self, number: usize, error: Error) -> Error {
        let ShardFile { location, named_by } = &self.shards[number];
        if let (ShardNamedBy::User, Location::Object(uri)) = (named_by, location)
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        {
            return error.adding(web_hint(uri));
        }
        if let (ShardNamedBy::Index(index, position), Location::File(_), ErrorKind::InvalidInput) =
            (named_by, location, error.kind())
        {
            return self.indexes[*index].index.not_regular(*position, error);
        }
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        match named_by {
            ShardNamedBy::User => error,
            ShardNamedBy::Index(index, position) => {
                self.indexes[*index].index.missing(*position, error)
            }
            ShardNamedBy::Directory(directory) => {
                not_found_unlisted(directory, self.options.variant.as_deref(), error)
            }
        }
    }

    /// Checks that the options fit `location`, which is not a directory.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a file of another variant than is wanted, and for
    /// an index if all files are to be read without it.
    pub(super) fn check_named(&self, location: &Location) -> Result<()> {
        let name = match location {
            Location::File(path) => path.file_name().unwrap_or_default(),
            Location::Object(uri) => OsStr::new(uri.name()),
        };
        if self.options.all_files && is_index(name) {
            let option = option("all_files").on();
            let sentence = format!(
                "{option} reads the files of a directory without its index, and {location} is an \
                 index; leave {option} out, or name the directory"
            );
            return Err(Error::invalid_input(sentence));
        }
        check_variant(location, name, self.options.variant.as_deref())
    }

    /// Reads the index at `location` and adds its shards.
    pub(super) fn add_index(&mut self, opener: &Opener, location: Location) -> Result<()> {
        self.add_read_index(Index::read(opener, location)?);
        Ok(())
    }

    /// Adds the shards of `index`.
    pub(super) fn add_read_index(&mut self, index: Index) {
        let number = self.indexes.len();
        let files = index.files();
        let mut shards = vec![0; files.len()];
        for (location, position) in files {
            shards[position] = self.add_shard(location, ShardNamedBy::Index(number, position));
        }
        self.indexes.push(IndexFile { index, shards });
    }

    /// Adds the index or the shards of `directory`, whose files have the sorted `names`. `join` returns
    /// the location of a name.
    pub(super) fn add_directory<N: AsRef<OsStr>>(
        &mut self,
        opener: &Opener,
        directory: &Location,
        names: &[N],
        join: impl Fn(&N) -> Location,
    ) -> Result<()> {
        let mut useful: Vec<&N> = names.iter().collect();
        loop {
            let unread = match select(directory, &useful, &self.options)? {
                DirectorySelection::Index(name) => {
                    let index = Index::read(opener, join(*name))?;
                    if !index.is_empty() {
                        self.add_read_index(index);
                        break;
                    }
                    tracing::warn!("{} names no tensor and is ignored", index.location);
                    name.as_ref().to_owned()
                }
                DirectorySelection::Shards(names) => {
                    for name in names {
                        self.add_shard(join(*name), ShardNamedBy::User);
                    }
                    break;
                }
            };
            useful.retain(|name| name.as_ref() != unread);
        }
        self.note_left_out(directory, names.iter().map(&join));
        Ok(())
    }

    /// Adds those of `locations`, the files of `directory`, that are safetensors files and not read.
    fn note_left_out(&mut self, directory: &Location, locations: impl Iterator<Item = Location>) {
        let first = self.left_out.len();
        // Most files are read by the very name, so that their canonical paths need not be looked up.
        let read: HashSet<_> = self.shards.iter().map(|shard| &shard.location).collect();
        let is_left_out = |location: &Location| {
            is_shard(location)
                && !read.contains(location)
                && !self.known.contains_key(&key_of(location))
        };
        let is_new = |location: &Location| !self.left_out.contains(location);
        let left_out: Vec<_> = locations.filter(is_left_out).filter(is_new).collect();
        self.left_out.extend(left_out);
        if let [one, ..] = &self.left_out[first..] {
            let count = self.left_out.len() - first;
            tracing::info!(
                "safetensors files in {directory} that are left out: {count}, such as {one}; \
                 {} reads all files",
                option("all_files").on()
            );
        }
    }

    /// Adds the shard at `location` unless it was added before. Returns its position.
    pub(super) fn add_shard(&mut self, location: Location, named_by: ShardNamedBy) -> usize {
        let key = key_of(&location);
        *self.known.entry(key).or_insert_with(|| {
            self.shards.push(ShardFile { location, named_by });
            self.shards.len() - 1
        })
    }
}

/// The location by which a file is recognized when it is named again.
fn key_of(location: &Location) -> Location {
    match location {
        // A path that cannot be resolved is its own key; opening it gives the reason.
        Location::File(path) => {
            fs::canonicalize(path).map_or_else(|_| location.clone(), Location::from)
        }
        Location::Object(_) => location.clone(),
    }
}

fn is_shard(location: &Location) -> bool {
    match location {
        Location::File(path) => path.file_name().is_some_and(file_name::is_shard),
        Location::Object(uri) => file_name::is_shard(OsStr::new(uri.name())),
    }
}

/// What a user of a web server may have meant by a URL that names no object; empty for other stores.
fn web_hint(uri: &ObjectUri) -> &'static str {
    match uri.name() {
        _ if !uri.is_url() => "",
        name if name.contains(['*', '[']) => {
            "; web servers do not list their files, so patterns do not work there: name the files, \
             their index, or the directory with a slash at its end"
        }
        name if !file_name::is_shard(OsStr::new(name)) => {
            "; the URL of a directory ends in a slash"
        }
        _ => "",
    }
}

/// The error of a directory that cannot be listed and has no file with a usual name.
fn not_found_unlisted(directory: &Location, variant: Option<&str>, cause: Error) -> Error {
    let [index, file] = usual_names(variant);
    let sentence = format!(
        "the server of {directory} does not list it, and there is neither {index} nor {file}; name \
         the index or the files themselves"
    );
    Error::new(ErrorKind::NotFound, sentence).with_source(cause)
}
