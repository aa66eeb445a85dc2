//! From what the user named to the files of the shards.
//!
//! | named | read |
//! | --- | --- |
//! | a file, an object `*.safetensors` | that |
//! | one named `*.safetensors.index.json` | the files it names, sorted |
//! | a directory, another object | its `model.safetensors.index.json`, else its only index, else its `*.safetensors` files, sorted |
//! | a path with `*`, `?` or `[` that does not exist | everything it matches, sorted, each as if it had been named |
//!
//! Directories are not searched below their first level, and names that begin with a dot are left
//! out of directories and patterns, as a shell does. Patterns match names that are UTF-8. A file
//! that is named twice, in whatever way (also through symbolic links), counts once, at its first
//! place: `dir dir/a.safetensors` is `dir`.
//!
//! Whether a file exists and may be read is found out when it is opened.
//!
//! ```text
//! resolve --> paths    the file system: what is a directory, patterns
//!         \-> objects  stores: what acts as a directory, patterns of names
//! ```

mod objects;
mod paths;

use super::index::{self, Index};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::source::Opener;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

const PREFERRED_INDEX: &str = "model.safetensors.index.json";

const SHARD_SUFFIX: &str = ".safetensors";

/// How patterns match.
const AS_A_SHELL: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The files of a checkpoint.
#[derive(Default)]
pub(super) struct Files {
    /// Each shard's file, once.
    pub(super) shards: Vec<ShardFile>,
    pub(super) indexes: Vec<IndexFile>,
    /// What each file is known by, and its position in `shards`.
    known: HashMap<Location, usize>,
}

/// The file of a shard.
pub(super) struct ShardFile {
    pub(super) location: Location,
    named_by: NamedBy,
}

/// Why a shard is looked for where it is, if not because it was named or seen.
enum NamedBy {
    User,
    /// The index that named it first (a position in [`Files::indexes`]) and its position there.
    Index(usize, usize),
    /// This directory, which cannot be listed.
    Directory(Location),
}

/// An index and, for each position in it, the position in [`Files::shards`].
pub(super) struct IndexFile {
    pub(super) index: Index,
    pub(super) shards: Vec<usize>,
}

/// The files that `locations` name. `opener` lists directories of stores and reads indexes.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) for a directory without safetensors files and a pattern that
/// matches nothing, [`InvalidInput`](ErrorKind::InvalidInput) for no location at all and a
/// malformed pattern; else those of reading directories and indexes.
pub(super) fn resolve(opener: &Opener, locations: &[Location]) -> Result<Files> {
    if locations.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "no location was given; name a file, a directory or an index",
        ));
    }
    let mut files = Files::default();
    for location in locations {
        match location {
            Location::File(path) => paths::add(&mut files, opener, path)?,
            Location::Object(uri) => objects::add(&mut files, opener, uri)?,
        }
    }
    Ok(files)
}

impl Files {
    /// What it means that shard `number` does not open, for `error`.
    pub(super) fn explain(&self, number: usize, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        match &self.shards[number].named_by {
            NamedBy::User => error,
            NamedBy::Index(index, position) => self.indexes[*index].index.missing(*position, error),
            NamedBy::Directory(directory) => objects::nothing_known(directory, error),
        }
    }

    fn add_index(&mut self, opener: &Opener, location: Location) -> Result<()> {
        let index = Index::read(opener, location)?;
        let number = self.indexes.len();
        let files = index.files();
        let mut shards = vec![0; files.len()];
        for (location, position) in files {
            shards[position] = self.add_shard(location, NamedBy::Index(number, position));
        }
        self.indexes.push(IndexFile { index, shards });
        Ok(())
    }

    /// The position of the shard at `location`, added if it is not there yet.
    fn add_shard(&mut self, location: Location, named_by: NamedBy) -> usize {
        let identity = match &location {
            // A path that cannot be followed is its own identity; opening it says why.
            Location::File(path) => {
                fs::canonicalize(path).map_or_else(|_| location.clone(), Location::from)
            }
            Location::Object(_) => location.clone(),
        };
        *self.known.entry(identity).or_insert_with(|| {
            self.shards.push(ShardFile { location, named_by });
            self.shards.len() - 1
        })
    }
}

/// What is read of a directory.
enum Chosen<'a, N> {
    Index(&'a N),
    Shards(Vec<&'a N>),
}

/// What to read of a directory with `names`: the preferred index, else the only one, else all shards.
fn choose<N: AsRef<OsStr>>(names: &[N]) -> Chosen<'_, N> {
    if let Some(preferred) = names.iter().find(|name| name.as_ref() == PREFERRED_INDEX) {
        return Chosen::Index(preferred);
    }
    let mut indexes = names.iter().filter(|name| has_suffix(name.as_ref(), index::SUFFIX));
    match (indexes.next(), indexes.next()) {
        (Some(only), None) => Chosen::Index(only),
        _ => {
            let is_shard = |name: &&N| has_suffix(name.as_ref(), SHARD_SUFFIX);
            Chosen::Shards(names.iter().filter(is_shard).collect())
        }
    }
}

/// Whether `name` ends with `suffix` and has something in front of it.
fn has_suffix(name: &OsStr, suffix: &str) -> bool {
    name.len() > suffix.len() && name.as_bytes().ends_with(suffix.as_bytes())
}

/// The error of a directory without shards.
fn empty(directory: &Location) -> Error {
    let sentence = format!(
        "no *.safetensors file in the directory {directory}; name the directory that holds the \
         checkpoint, or its files"
    );
    Error::new(ErrorKind::NotFound, sentence)
}

fn malformed(pattern: &str, cause: glob::PatternError) -> Error {
    let sentence = format!("{pattern:?} does not exist, and as a pattern it is malformed");
    Error::new(ErrorKind::InvalidInput, sentence).with_source(cause)
}

fn no_match(pattern: &str) -> Error {
    let sentence = format!("nothing matches the pattern {pattern:?}; check the path");
    Error::new(ErrorKind::NotFound, sentence)
}
