//! Selects the files to read of a directory, and the errors if there are none.

use crate::checkpoint::index;
use crate::error::{Error, ErrorKind};
use crate::location::Location;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(super) const PREFERRED_INDEX: &str = "model.safetensors.index.json";

/// The name of a checkpoint that consists of one file.
pub(super) const PREFERRED_SHARD: &str = "model.safetensors";

pub(super) const SHARD_SUFFIX: &str = ".safetensors";

/// Patterns match as they do in a shell.
pub(super) const PATTERN_OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The files to read of a directory.
pub(super) enum DirectorySelection<'a, N> {
    Index(&'a N),
    Shards(Vec<&'a N>),
}

/// Selects the files to read of a directory with `names`: the preferred index, else the only index,
/// else all shards.
pub(super) fn select<N: AsRef<OsStr>>(names: &[N]) -> DirectorySelection<'_, N> {
    if let Some(preferred) = names.iter().find(|name| name.as_ref() == PREFERRED_INDEX) {
        return DirectorySelection::Index(preferred);
    }
    let mut indexes = names.iter().filter(|name| has_suffix(name.as_ref(), index::SUFFIX));
    match (indexes.next(), indexes.next()) {
        (Some(only), None) => DirectorySelection::Index(only),
        _ => {
            let is_shard = |name: &&N| has_suffix(name.as_ref(), SHARD_SUFFIX);
            DirectorySelection::Shards(names.iter().filter(is_shard).collect())
        }
    }
}

/// Whether `name` is longer than `suffix` and ends with it.
pub(super) fn has_suffix(name: &OsStr, suffix: &str) -> bool {
    name.len() > suffix.len() && name.as_bytes().ends_with(suffix.as_bytes())
}

/// The error of a directory without shards.
pub(super) fn empty(directory: &Location) -> Error {
    let sentence = format!(
        "no *.safetensors file in the directory {directory}; name the directory that holds the \
         checkpoint, or its files"
    );
    Error::new(ErrorKind::NotFound, sentence)
}

pub(super) fn malformed(pattern: &str, cause: glob::PatternError) -> Error {
    let sentence = format!("{pattern:?} does not exist and is not a valid pattern");
    Error::new(ErrorKind::InvalidInput, sentence).with_source(cause)
}

pub(super) fn no_match(pattern: &str) -> Error {
    let sentence = format!("nothing matches the pattern {pattern:?}; check the path");
    Error::new(ErrorKind::NotFound, sentence)
}
