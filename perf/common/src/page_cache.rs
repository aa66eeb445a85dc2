//! Puts files into the page cache, or removes them from it, before a run.
//!
//! `posix_fadvise(POSIX_FADV_DONTNEED)` is only advice and skips dirty pages, so files are synced
//! first and their resident pages are counted afterwards. Files on tmpfs always stay in memory.

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const ATTEMPTS: usize = 3;

/// Counts the resident bytes of a range of a file: `ringload::internals::resident_bytes`.
pub type Resident = fn(&File, u64, u64) -> io::Result<u64>;

/// Whether files are in the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheState {
    /// No page is.
    Cold,
    /// All pages are.
    Warm,
}

impl CacheState {
    /// `cold` or `warm`.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheState::Cold => "cold",
            CacheState::Warm => "warm",
        }
    }

    /// Puts `files` into this state. Returns how many of their bytes are not in it after several
    /// attempts.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn prepare(self, files: &[impl AsRef<Path>], resident: Resident) -> io::Result<u64> {
        for _ in 0..ATTEMPTS {
            if self.missed_bytes(files, resident)? == 0 {
                return Ok(0);
            }
            for path in files {
                match self {
                    CacheState::Cold => evict(path.as_ref())?,
                    CacheState::Warm => read(path.as_ref())?,
                }
            }
        }
        self.missed_bytes(files, resident)
    }

    fn missed_bytes(self, files: &[impl AsRef<Path>], resident: Resident) -> io::Result<u64> {
        let mut missed = 0;
        for path in files {
            let file = open(path.as_ref())?;
            let len = file.metadata()?.len();
            let resident = resident(&file, 0, len)?;
            missed += if self == CacheState::Cold { resident } else { len - resident.min(len) };
        }
        Ok(missed)
    }
}

/// Removes the file from the page cache, as far as the kernel follows the advice.
///
/// # Errors
/// When the file cannot be opened or synced.
pub fn evict(path: &Path) -> io::Result<()> {
    let file = open(path)?;
    file.sync_all()?;
    Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// Reads the file into the page cache.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> io::Result<()> {
    let mut file = open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()))
    };
    File::open(path).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local!(static RESIDENT: Cell<u64> = const { Cell::new(0) });

    #[test]
    fn what_is_not_in_the_state_is_counted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [1; 1000]).unwrap();
        let resident: Resident = |_, _, _| Ok(RESIDENT.get());
        for (resident_bytes, cold, warm) in [(0, 0, 1000), (300, 300, 700), (1000, 1000, 0)] {
            RESIDENT.set(resident_bytes);
            assert_eq!(CacheState::Cold.prepare(&[file.path()], resident).unwrap(), cold);
            assert_eq!(CacheState::Warm.prepare(&[file.path()], resident).unwrap(), warm);
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = CacheState::Warm.prepare(&["/nowhere"], |_, _, _| Ok(0)).unwrap_err();
        assert!(error.to_string().starts_with("cannot open /nowhere: "), "{error}");
    }
}
