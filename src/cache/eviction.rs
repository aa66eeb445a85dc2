//! The cache's size limit: entries are evicted least recently used first.
//!
//! The size of entries is read from the file system (as allocated blocks, so that holes do not
//! count), and not kept in a file that a crash could leave wrong. It is measured again after every
//! [`MEASURE_BYTES`] written, and before every write when the limit is near. Several processes that
//! write at once may each exceed the limit by one write, or by [`MEASURE_BYTES`] if they begin far
//! below the limit; the next write then evicts.

use super::cache_dir::CacheDir;
use super::files::{DATA, PAGES, PARTIAL, USED};
use crate::sync::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// The size of the cache is measured again after this many bytes have been written.
const MEASURE_BYTES: u64 = 64 << 20;

/// Keeps a cache below its size limit.
#[derive(Debug)]
pub(super) struct Eviction {
    cache: Arc<CacheDir>,
    limit_bytes: Option<u64>,
    size: Mutex<SizeEstimate>,
}

#[derive(Debug, Default)]
struct SizeEstimate {
    /// The size at the last measurement, if there was one.
    measured_bytes: Option<u64>,
    /// The bytes that this process has written since that measurement.
    written_bytes: u64,
}

impl Eviction {
    pub fn new(cache: Arc<CacheDir>, limit_bytes: Option<u64>) -> Self {
        Self { cache, limit_bytes, size: Mutex::default() }
    }

    /// Evicts entries until `bytes` more fit. Returns false where not enough can be evicted.
    pub fn make_room(&self, bytes: u64) -> bool {
        let Some(limit) = self.limit_bytes else { return true };
        let mut size = self.size.lock();
        let estimate = size.measured_bytes.map(|measured| measured + size.written_bytes + bytes);
        if size.written_bytes >= MEASURE_BYTES || estimate.is_none_or(|bytes| bytes > limit) {
            let mut left = total_bytes(&self.cache);
            if left + bytes > limit {
                left = evict_to(&self.cache, limit.saturating_sub(bytes));
            }
            *size = SizeEstimate { measured_bytes: Some(left), written_bytes: 0 };
            if left + bytes > limit {
                return false;
            }
        }
        size.written_bytes += bytes;
        true
    }
}

/// The disk space and the last use of an entry.
#[derive(Debug)]
pub(super) struct EntryUsage {
    /// The entry's directory.
    pub path: PathBuf,
    pub disk_bytes: u64,
    pub last_used: SystemTime,
}

impl EntryUsage {
    fn of(cache: &CacheDir, path: PathBuf) -> Self {
        let status = |name: &str| cache.root.status(&path.join(name));
        let bytes = |name| status(name).map_or(0, |file| file.disk_bytes);
        let disk_bytes = [DATA, PARTIAL, PAGES].map(bytes).iter().sum();
        let last_used = status(USED).map_or(SystemTime::UNIX_EPOCH, |file| file.modified);
        Self { disk_bytes, last_used, path }
    }
}

/// The usage of each entry, least recently used first.
pub(super) fn usages(cache: &CacheDir) -> Vec<EntryUsage> {
    let mut usages: Vec<_> = cache.entries().map(|path| EntryUsage::of(cache, path)).collect();
    usages.sort_by_key(|usage| usage.last_used);
    usages
}

/// The disk space of all entries.
pub(super) fn total_bytes(cache: &CacheDir) -> u64 {
    usages(cache).iter().map(|usage| usage.disk_bytes).sum()
}

/// Removes entries that are not in use, least recently used first, until all entries together have
/// at most `limit_bytes`. Returns the disk space of the entries that are left.
pub(super) fn evict_to(cache: &CacheDir, limit_bytes: u64) -> u64 {
    cache.remove_leftovers();
    let usages = usages(cache);
    let mut left = usages.iter().map(|usage| usage.disk_bytes).sum::<u64>();
    for EntryUsage { path, disk_bytes, .. } in usages {
        if left <= limit_bytes {
            break;
        }
        if cache.remove(&path) {
            tracing::info!(entry = %path.display(), bytes = disk_bytes, "evicted");
            left = left.saturating_sub(disk_bytes);
        }
    }
    left
}
