//! How much disk the cache takes, and who has to go for it.
//!
//! What entries take is asked of the file system (allocated blocks, so that holes do not count), not
//! kept in a file that a crash could make wrong. It is asked again after every [`LOOK_BYTES`] written,
//! and for every write when the limit is near; so several processes that write at once overshoot by a
//! write each at most, or by that much when they begin far below the limit, and the next one evicts.

use super::entry::lock;
use super::files::{DATA, PAGES, PARTIAL, USED};
use super::shelf::{Shelf, subdirectories};
use crate::options::CacheSize;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// After so many bytes written, what the cache takes is looked at again.
const LOOK_BYTES: u64 = 64 << 20;

/// What lies aside for longer than this was left by a process that was killed.
const ASIDE: Duration = Duration::from_secs(3600);

/// The limit, and how far it is.
#[derive(Debug)]
pub(super) struct Room {
    limit_bytes: Option<u64>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// At the last look, if there was one.
    seen_bytes: Option<u64>,
    /// By this process, since then.
    written_bytes: u64,
}

impl Room {
    pub fn new(size: CacheSize) -> Self {
        let limit_bytes = match size {
            CacheSize::Unlimited => None,
            CacheSize::Bytes(bytes) => Some(bytes),
        };
        Self { limit_bytes, taken: Mutex::default() }
    }

    /// Whether an object of `len_bytes` may be in the cache at all.
    pub fn could_hold(&self, len_bytes: u64) -> bool {
        self.limit_bytes.is_none_or(|limit| len_bytes <= limit)
    }

    /// Makes room for `bytes` more. False where there is none to be had.
    pub fn make(&self, shelf: &Shelf, bytes: u64) -> bool {
        let Some(limit) = self.limit_bytes else { return true };
        let mut taken = lock(&self.taken);
        let estimate = taken.seen_bytes.map(|seen| seen + taken.written_bytes + bytes);
        if taken.written_bytes >= LOOK_BYTES || estimate.is_none_or(|bytes| bytes > limit) {
            let seen = usage(shelf).iter().map(|used| used.bytes).sum::<u64>();
            let left = if seen + bytes > limit {
                evict_to(shelf, limit.saturating_sub(bytes))
            } else {
                seen
            };
            *taken = Taken { seen_bytes: Some(left), written_bytes: 0 };
            if left + bytes > limit {
                return false;
            }
        }
        taken.written_bytes += bytes;
        true
    }
}

/// An entry and what it takes.
#[derive(Debug)]
pub(super) struct Used {
    pub directory: PathBuf,
    /// On disk.
    pub bytes: u64,
    pub last_used: SystemTime,
}

/// What each entry takes, those used last at the end.
pub(super) fn usage(shelf: &Shelf) -> Vec<Used> {
    let mut used: Vec<_> = shelf.entries().into_iter().map(Used::of).collect();
    used.sort_by_key(|used| used.last_used);
    used
}

impl Used {
    fn of(directory: PathBuf) -> Self {
        let blocks = |name| fs::metadata(directory.join(name)).map_or(0, |file| file.blocks());
        let bytes = [DATA, PARTIAL, PAGES].map(blocks).iter().sum::<u64>() * 512;
        let last_used = fs::metadata(directory.join(USED)).and_then(|file| file.modified());
        Self { bytes, last_used: last_used.unwrap_or(SystemTime::UNIX_EPOCH), directory }
    }
}

/// Removes entries that nobody uses, those used longest ago first, until all take at most
/// `limit_bytes`; gives what they take then.
pub(super) fn evict_to(shelf: &Shelf, limit_bytes: u64) -> u64 {
    sweep(&shelf.directory);
    let used = usage(shelf);
    let mut left = used.iter().map(|used| used.bytes).sum::<u64>();
    for used in used {
        if left <= limit_bytes {
            break;
        }
        if shelf.remove(&used.directory) {
            tracing::info!(entry = %used.directory.display(), bytes = used.bytes, "evicted");
            left = left.saturating_sub(used.bytes);
        }
    }
    left
}

/// Removes what processes left that were killed while they made or removed entries.
pub(super) fn sweep(directory: &Path) {
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() == 17 && name.starts_with('.')
    };
    for path in subdirectories(directory).into_iter().filter(is_aside) {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age > ASIDE) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}
