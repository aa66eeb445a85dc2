//! What objects of stores, and addresses of web servers, name.
//!
//! Stores know no directories, only names with slashes in them. What is written with a slash at its
//! end, or has a name that no shard has, is taken for a directory: what the store lists below it. A
//! plain web server lists nothing: of its directories, the two names that every checkpoint has are
//! tried.

use super::{
    AS_A_SHELL, Chosen, Files, NamedBy, PREFERRED_INDEX, SHARD_SUFFIX, choose, empty, has_suffix,
    malformed, no_match,
};
use crate::checkpoint::index;
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri};
use crate::source::Opener;
use std::ffi::OsStr;

/// The name of a checkpoint that is one file.
const PREFERRED_SHARD: &str = "model.safetensors";

/// Adds what `uri` names, which may be a pattern.
///
/// # Errors
/// As [`resolve`](super::resolve).
pub(super) fn add(files: &mut Files, opener: &Opener, uri: &ObjectUri) -> Result<()> {
    let uri = &opener.actual(uri)?;
    if is_pattern(uri)
        && let Some(names) = opener.list(&uri.parent())?
        && !names.iter().any(|name| name == uri.name())
    {
        return add_matches(files, opener, uri, names);
    }
    let name = OsStr::new(uri.name());
    if has_suffix(name, index::SUFFIX) {
        return files.add_index(opener, Location::Object(uri.clone()));
    }
    if has_suffix(name, SHARD_SUFFIX) {
        add_shard(files, uri);
        return Ok(());
    }
    add_directory(files, opener, uri)
}

/// Adds `uri`, which is an object: opening it says what is wrong with it.
fn add_shard(files: &mut Files, uri: &ObjectUri) {
    files.add_shard(Location::Object(uri.clone()), NamedBy::User);
}

fn add_directory(files: &mut Files, opener: &Opener, uri: &ObjectUri) -> Result<()> {
    let directory = uri.as_directory();
    let Some(names) = opener.list(&directory)? else {
        if uri.is_directory() {
            return add_unlisted(files, opener, uri);
        }
        add_shard(files, uri);
        return Ok(());
    };
    if names.is_empty() && !uri.is_directory() {
        add_shard(files, uri);
        return Ok(());
    }
    let names = visible(names);
    match choose(&names) {
        Chosen::Index(name) => files.add_index(opener, Location::Object(directory.join(name))),
        Chosen::Shards(names) if names.is_empty() => Err(empty(&Location::Object(directory))),
        Chosen::Shards(names) => {
            names.into_iter().for_each(|name| add_shard(files, &directory.join(name)));
            Ok(())
        }
    }
}

/// Adds what is usual in a directory of a server that does not list it.
fn add_unlisted(files: &mut Files, opener: &Opener, directory: &ObjectUri) -> Result<()> {
    let index = Location::Object(directory.join(PREFERRED_INDEX));
    match files.add_index(opener, index) {
        // Stores that may not be listed say "denied" of what is not there.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            let shard = Location::Object(directory.join(PREFERRED_SHARD));
            files.add_shard(shard, NamedBy::Directory(Location::Object(directory.clone())));
            Ok(())
        }
        outcome => outcome,
    }
}

/// The error of a directory that cannot be listed and has no file of a usual name.
pub(super) fn nothing_known(directory: &Location, cause: Error) -> Error {
    let sentence = format!(
        "the server of {directory} does not list it, and there is neither {PREFERRED_INDEX} nor \
         {PREFERRED_SHARD}; name the index or the files themselves"
    );
    Error::new(ErrorKind::NotFound, sentence).with_source(cause)
}

/// Whether the name holds a character of patterns. In a web server's URL they mean themselves.
fn is_pattern(uri: &ObjectUri) -> bool {
    !uri.is_url() && uri.name().contains(['*', '?', '['])
}

/// Adds those of `names` that match the name of `uri`, which is none of them.
fn add_matches(
    files: &mut Files,
    opener: &Opener,
    uri: &ObjectUri,
    names: Vec<String>,
) -> Result<()> {
    let shown = uri.to_string();
    let pattern = glob::Pattern::new(uri.name()).map_err(|cause| malformed(&shown, cause))?;
    let mut names = visible(names);
    names.retain(|name| pattern.matches_with(name, AS_A_SHELL));
    if names.is_empty() {
        return Err(no_match(&shown));
    }
    for name in names {
        let found = uri.join(&name);
        match has_suffix(OsStr::new(&name), index::SUFFIX) {
            true => files.add_index(opener, Location::Object(found))?,
            false => add_shard(files, &found),
        }
    }
    Ok(())
}

/// `names` without hidden ones, sorted.
fn visible(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
