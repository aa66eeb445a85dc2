//! What a file of the cache is, without opening it.

use nix::sys::stat::FileStat;
use std::time::{Duration, SystemTime};

/// The status of a file, a directory or a link in the cache.
#[derive(Debug)]
pub(super) struct FileStatus {
    pub is_directory: bool,
    pub disk_bytes: u64,
    pub modified: SystemTime,
}

impl From<FileStat> for FileStatus {
    fn from(stat: FileStat) -> Self {
        let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Self {
            is_directory: stat.st_mode & libc::S_IFMT == libc::S_IFDIR,
            disk_bytes: u64::try_from(stat.st_blocks).unwrap_or_default() * 512,
            modified: SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds),
        }
    }
}
