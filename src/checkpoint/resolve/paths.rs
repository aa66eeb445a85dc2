//! Resolves paths of the local file system.

use super::files::{Files, ShardNamedBy};
use super::selection::{PATTERN_OPTIONS, is_index, malformed, no_match};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, intended_url};
use crate::source::Opener;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Adds the shards that `path` names; it may be a pattern.
///
/// # Errors
/// As [`resolve`](super::resolve).
pub(super) fn add(files: &mut Files, opener: &Opener, path: &Path) -> Result<()> {
    if let Some(url) = intended_url(path)
        && fs::symlink_metadata(path).is_err()
    {
        let sentence = format!("{} does not exist; for a URL, write {url}", Location::from(path));
        return Err(Error::new(ErrorKind::NotFound, sentence));
    }
    match pattern(path) {
        None => add_path(files, opener, path),
        Some(pattern) => {
            matches(pattern)?.iter().try_for_each(|path| add_path(files, opener, path))
        }
    }
}

fn add_path(files: &mut Files, opener: &Opener, path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => add_directory(files, opener, path),
        Ok(metadata) if metadata.is_file() => add_file(files, opener, path),
        // If it is not a file, opening it fails.
        _ => {
            files.add_shard(path.into(), ShardNamedBy::User);
            Ok(())
        }
    }
}

fn add_file(files: &mut Files, opener: &Opener, path: &Path) -> Result<()> {
    files.check_named(&Location::from(path))?;
    if path.file_name().is_some_and(is_index) {
        return files.add_index(opener, path.into());
    }
    files.add_shard(path.into(), ShardNamedBy::User);
    Ok(())
}

fn add_directory(files: &mut Files, opener: &Opener, directory: &Path) -> Result<()> {
    let names = names_in(directory)?;
    let join = |name: &OsString| directory.join(name).into();
    files.add_directory(opener, &Location::from(directory), &names, join)
}

/// Returns the names in `directory`, sorted by their bytes, without hidden files and directories.
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

/// Returns `path` as text if it is a pattern, that is, it does not exist and contains a pattern
/// character.
fn pattern(path: &Path) -> Option<&str> {
    let text = path.to_str().filter(|text| text.contains(['*', '?', '[']))?;
    let error = fs::symlink_metadata(path).err()?;
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
    .then_some(text)
}

/// Returns the paths that `pattern` matches, sorted.
fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let found =
        glob::glob_with(pattern, PATTERN_OPTIONS).map_err(|cause| malformed(pattern, cause))?;
    let paths: std::result::Result<Vec<PathBuf>, glob::GlobError> = found.collect();
    let mut paths = paths.map_err(|error| {
        let directory = error.path().display().to_string();
        Error::from_io(format_args!("list {directory} for {pattern:?}"), error.into())
    })?;
    if paths.is_empty() {
        return Err(no_match(pattern));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
