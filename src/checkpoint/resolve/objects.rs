//! Resolves objects of stores and addresses of web servers.
//!
//! Stores have no directories, only names that contain slashes. A URI that ends with a slash or does
//! not have the name of a shard is treated as a directory: the objects that the store lists below it.
//! A plain web server lists nothing, so for its directories the two usual names are tried.

use super::file_name::is_shard;
use super::files::{Files, ShardNamedBy};
use super::selection::{PATTERN_OPTIONS, is_index, malformed, no_match, usual_names};
use crate::checkpoint::index::Index;
use crate::error::{Error, ErrorKind, Result, option};
use crate::location::{Location, ObjectUri};
use crate::source::Opener;
use std::ffi::OsStr;

/// Adds the shards that `uri` names; it may be a pattern.
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
    if is_index(name) || is_shard(name) {
        files.check_named(&Location::Object(uri.clone()))?;
    }
    if is_index(name) {
        return files.add_index(opener, Location::Object(uri.clone()));
    }
    if is_shard(name) {
        add_shard(files, uri);
        return Ok(());
    }
    add_directory(files, opener, uri)
}

/// Adds the object `uri`. If it does not exist, opening it fails.
fn add_shard(files: &mut Files, uri: &ObjectUri) {
    files.add_shard(Location::Object(uri.clone()), ShardNamedBy::User);
}

fn add_directory(files: &mut Files, opener: &Opener, uri: &ObjectUri) -> Result<()> {
    let directory = uri.as_directory();
    match opener.list(&directory)? {
        None if uri.is_directory() => return add_unlisted(files, opener, uri),
        Some(names) if uri.is_directory() || !names.is_empty() => {
            let join = |name: &String| Location::Object(directory.join(name));
            let directory = Location::Object(directory.clone());
            return files.add_directory(opener, &directory, &visible(names), join);
        }
        _ => {
            files.check_named(&Location::Object(uri.clone()))?;
            add_shard(files, uri);
        }
    }
    Ok(())
}

/// Adds the index or shard with the usual name in a directory that the server does not list.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) if all files are wanted.
fn add_unlisted(files: &mut Files, opener: &Opener, directory: &ObjectUri) -> Result<()> {
    if files.options.all_files {
        let option = option("all_files").on();
        let sentence = format!(
            "the server of {directory} does not list its files, so {option} cannot find them; name \
             the files instead, or leave {option} out to read the index or model.safetensors"
        );
        return Err(Error::new(ErrorKind::Unsupported, sentence));
    }
    let names = usual_names(files.options.variant.as_deref());
    let [index, file] = names.map(|name| Location::Object(directory.join(&name)));
    match Index::read(opener, index) {
        Ok(index) if !index.is_empty() => files.add_read_index(index),
        // A store that does not permit listing answers "denied" for objects that do not exist.
        Err(error)
            if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
        {
            return Err(error);
        }
        _ => {
            let directory = Location::Object(directory.clone());
            files.add_shard(file, ShardNamedBy::Directory(directory));
        }
    }
    Ok(())
}

/// Whether the name contains a pattern character. In the URL of a web server they are literal.
fn is_pattern(uri: &ObjectUri) -> bool {
    !uri.is_url() && uri.name().contains(['*', '?', '['])
}

/// Adds those of `names` that match the name of `uri`, a pattern.
fn add_matches(
    files: &mut Files,
    opener: &Opener,
    uri: &ObjectUri,
    names: Vec<String>,
) -> Result<()> {
    let shown = uri.to_string();
    let pattern = glob::Pattern::new(uri.name()).map_err(|cause| malformed(&shown, cause))?;
    let mut names = visible(names);
    names.retain(|name| pattern.matches_with(name, PATTERN_OPTIONS));
    if names.is_empty() {
        return Err(no_match(&shown));
    }
    for name in names {
        let found = uri.join(&name);
        files.check_named(&Location::Object(found.clone()))?;
        match is_index(OsStr::new(&name)) {
            true => files.add_index(opener, Location::Object(found))?,
            false => add_shard(files, &found),
        }
    }
    Ok(())
}

/// Returns `names` without hidden ones, sorted.
fn visible(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
#[cfg(feature = "http")]
#[path = "objects_tests.rs"]
mod tests;
