//! The files of a checkpoint, as resolving the locations collects them.

use super::selection::{DirectorySelection, PREFERRED_INDEX, PREFERRED_SHARD, empty, select};
use crate::checkpoint::index::Index;
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::source::Opener;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;

/// The files of a checkpoint.
#[derive(Default)]
pub(in crate::checkpoint) struct Files {
    /// The file of each shard, without repetitions.
    pub(in crate::checkpoint) shards: Vec<ShardFile>,
    pub(in crate::checkpoint) indexes: Vec<IndexFile>,
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
    /// Adds to `error`, with which shard `number` failed to open, the reason why the shard was
    /// expected.
    pub(in crate::checkpoint) fn explain(&self, number: usize, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        match &self.shards[number].named_by {
            ShardNamedBy::User => error,
            ShardNamedBy::Index(index, position) => {
                self.indexes[*index].index.missing(*position, error)
            }
            ShardNamedBy::Directory(directory) => not_found_unlisted(directory, error),
        }
    }

    /// Reads the index at `location` and adds its shards.
    pub(super) fn add_index(&mut self, opener: &Opener, location: Location) -> Result<()> {
        let index = Index::read(opener, location)?;
        let number = self.indexes.len();
        let files = index.files();
        let mut shards = vec![0; files.len()];
        for (location, position) in files {
            shards[position] = self.add_shard(location, ShardNamedBy::Index(number, position));
        }
        self.indexes.push(IndexFile { index, shards });
        Ok(())
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
        match select(names) {
            DirectorySelection::Index(name) => self.add_index(opener, join(name))?,
            DirectorySelection::Shards(names) if names.is_empty() => return Err(empty(directory)),
            DirectorySelection::Shards(names) => {
                for name in names {
                    self.add_shard(join(name), ShardNamedBy::User);
                }
            }
        }
        Ok(())
    }

    /// Adds the shard at `location` unless it was added before. Returns its position.
    pub(super) fn add_shard(&mut self, location: Location, named_by: ShardNamedBy) -> usize {
        let key = match &location {
            // A path that cannot be resolved is its own key; opening it gives the reason.
            Location::File(path) => {
                fs::canonicalize(path).map_or_else(|_| location.clone(), Location::from)
            }
            Location::Object(_) => location.clone(),
        };
        *self.known.entry(key).or_insert_with(|| {
            self.shards.push(ShardFile { location, named_by });
            self.shards.len() - 1
        })
    }
}

/// The error of a directory that cannot be listed and has no file with a usual name.
fn not_found_unlisted(directory: &Location, cause: Error) -> Error {
    let sentence = format!(
        "the server of {directory} does not list it, and there is neither {PREFERRED_INDEX} nor \
         {PREFERRED_SHARD}; name the index or the files themselves"
    );
    Error::new(ErrorKind::NotFound, sentence).with_source(cause)
}
