//! Finds the checksum of a local file, which others left beside it.
//!
//! The first of these counts:
//!
//! 1. The name of the file's blob, for a file of a Hugging Face cache: the file is a link to
//!    `blobs/<SHA-256>`. Blobs of files that are not in Git LFS are named by a SHA-1 of Git, which is
//!    not compared.
//! 2. `NAME.sha256` beside the file, with the digest alone or with lines as `sha256sum` writes them.
//! 3. `SHA256SUMS` beside the file, with a line for it.
//!
//! The files are opened as every file is: only if they are regular, and only up to 16 MiB.

mod sums_file;

use super::expected::ExpectedSum;
use crate::checksum::hex;
use crate::error::{Error, ErrorKind, Result, shown};
use crate::sys;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use sums_file::SumsFile;

/// The name of a file with the digests of its neighbours.
const SUMS: &str = "SHA256SUMS";

/// The end of the name of a file with the digest of one neighbour.
const SUFFIX: &str = ".sha256";

/// The purpose of such a file, for messages.
const PURPOSE: &str = "file of checksums";

/// Returns the checksum that was left for the file at `path`; `None` if there is none.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a file of checksums that is not a regular file, or
/// that has none or several for the file; the errors of reading it.
pub(in crate::source) fn find(path: &Path) -> Result<Option<ExpectedSum>> {
    if let Some(digest) = of_hub_cache(path) {
        return Ok(Some(ExpectedSum::sha256(digest, "the name of its blob in the Hub's cache")));
    }
    let Some(name) = path.file_name() else { return Ok(None) };
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut own = name.to_owned();
    own.push(SUFFIX);
    let own = directory.join(own);
    if let Some(text) = read(&own)? {
        let digest = SumsFile(&text).of_one(name.as_bytes());
        return expected(digest.and_then(|digest| digest.ok_or("has none for it")), path, &own);
    }
    let sums = directory.join(SUMS);
    match read(&sums)? {
        Some(text) => match SumsFile(&text).of(name.as_bytes()) {
            Ok(None) => Ok(None),
            Ok(Some(digest)) => expected(Ok(digest), path, &sums),
            Err(why) => expected(Err(why), path, &sums),
        },
        None => Ok(None),
    }
}

fn expected(
    digest: Result<[u8; 32], &'static str>,
    path: &Path,
    of: &Path,
) -> Result<Option<ExpectedSum>> {
    match digest {
        Ok(digest) => Ok(Some(ExpectedSum::sha256(digest, shown(of.display())))),
        Err(why) => Err(Error::invalid_input(format!(
            "cannot verify {}: {} {why}; correct that file or remove it",
            path.display(),
            of.display()
        ))),
    }
}

/// Reads a file of checksums; `None` if there is no file of that name.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match sys::read_small(path, PURPOSE) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The SHA-256 that names the blob of a Hugging Face cache which `path` leads to.
pub(in crate::source) fn of_hub_cache(path: &Path) -> Option<[u8; 32]> {
    let blob = std::fs::canonicalize(path).ok()?;
    let is_blob = blob.parent()?.file_name() == Some(OsStr::new("blobs"));
    is_blob.then(|| hex::decode(blob.file_name()?.as_bytes()))?
}

#[cfg(test)]
mod tests;
