//! The files to measure: those of a checkpoint, which have to be cold or warm before each run.
//!
//! A few pages of them may be in the wrong state, because other processes use the page cache, too.

use crate::failure::Outcome;
use crate::format;
use ringload::internals::resident_bytes;
use ringload::{Checkpoint, Error, ErrorKind, Location};
use ringload_measure::page_cache::CacheState;
use std::path::PathBuf;

/// How much may be in the page cache (or missing from it), in thousandths of the bytes.
const TOLERANCE_THOUSANDTHS: u64 = 2;

/// The files of `checkpoint`, and the length of all of them, headers included.
///
/// # Errors
/// When a shard is not a local file.
pub fn of(checkpoint: &Checkpoint) -> Outcome<(Vec<PathBuf>, u64)> {
    let path = |location: &Location| match location {
        Location::File(path) => Ok(path.clone()),
        other => {
            let why = format!("{other} is not a local file; only local files can be measured");
            Err(Error::new(ErrorKind::Unsupported, why))
        }
    };
    let paths = checkpoint.shards().iter().map(|shard| path(shard.location()));
    let bytes = checkpoint.shards().iter().map(|shard| shard.len_bytes()).sum();
    Ok((paths.collect::<Result<_, _>>()?, bytes))
}

/// Puts (nearly) all of `files` into this state. Returns the reason where that is not possible.
///
/// # Errors
/// When a file cannot be read.
pub fn prepare(state: CacheState, files: &[PathBuf], bytes: u64) -> Outcome<Option<String>> {
    let missed = state
        .prepare(files, resident_bytes)
        .map_err(|error| Error::from_io("prepare the files of the checkpoint", error))?;
    if within_tolerance(missed, bytes) {
        return Ok(None);
    }
    let (missed, all) = (format::size(missed), format::size(bytes));
    Ok(Some(match state {
        CacheState::Cold => format!(
            "the files cannot be made cold: {missed} of {all} stay in the page cache (they are on \
             tmpfs, or another process has them mapped)"
        ),
        CacheState::Warm => format!(
            "the files cannot be kept warm: {missed} of {all} are not in the page cache after \
             reading all of them"
        ),
    }))
}

fn within_tolerance(bytes: u64, of: u64) -> bool {
    bytes.saturating_mul(1000) <= of.saturating_mul(TOLERANCE_THOUSANDTHS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_pages_do_not_count() {
        assert!(within_tolerance(0, 0));
        assert!(within_tolerance(2, 1000));
        assert!(!within_tolerance(3, 1000));
    }

    #[test]
    fn files_are_warm_after_they_were_prepared() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let files = [path];
        assert_eq!(prepare(CacheState::Warm, &files, 1 << 20).unwrap(), None);
        let file = std::fs::File::open(&files[0]).unwrap();
        assert_eq!(resident_bytes(&file, 0, 1 << 20).unwrap(), 1 << 20);
    }
}
