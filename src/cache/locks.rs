//! Locks that all processes see, and that end with their holder.
//!
//! One file, of which byte ranges are locked ("open file description" locks: they belong to the open
//! file, not to the process, and the kernel drops them when it is closed or its process is killed).
//! Each entry has a stretch of 2^32 bytes in it, named by 31 bits of its hash: a byte for each page,
//! and the last ones for the entry as a whole. Two entries on one stretch only wait for each other.

use super::key;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a lock that is held for moments is waited for.
const MOMENTS: Duration = Duration::from_secs(10);

/// Entries have fewer pages than this.
pub(super) const PAGES_MAX: u64 = (1 << 32) - 16;
const CHANGE: u64 = (1 << 32) - 2;
const USE: u64 = (1 << 32) - 1;

/// The lock file, opened.
#[derive(Debug)]
pub(super) struct Locks {
    file: File,
}

/// The locks of one entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch(u64);

impl Stretch {
    /// That of the entry with these names.
    pub fn of_entry(place: &str, identity: &str) -> Self {
        Self::of(&key::hash([place.as_bytes(), identity.as_bytes()]))
    }

    /// That of a hash, in hexadecimal digits.
    fn of(name: &str) -> Self {
        let digits = name.get(..8).unwrap_or_default();
        let number = u64::from_str_radix(digits, 16).unwrap_or_default();
        Self((number & 0x7fff_ffff) << 32)
    }
}

impl Locks {
    /// Opens the lock file of `directory`, which is made if it is to be `writable`.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(directory: &Path, writable: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .create(writable)
            .truncate(false)
            .custom_flags(libc::O_CLOEXEC)
            .open(directory.join("lock"))?;
        Ok(Self { file })
    }

    /// Whether `pages` of the entry are now this holder's.
    pub fn claim(&self, entry: Stretch, first: u64, end: u64) -> bool {
        self.set(libc::F_WRLCK, entry.0 + first, end - first)
    }

    /// Gives `pages` back.
    pub fn release(&self, entry: Stretch, first: u64, end: u64) {
        self.set(libc::F_UNLCK, entry.0 + first, end - first);
    }

    /// Says that the entry is in use, by whoever says so. Waits for one that is being removed.
    pub fn begin_use(&self, entry: Stretch) -> bool {
        self.wait(libc::F_RDLCK, entry.0 + USE)
    }

    /// Says that it is not any more.
    pub fn end_use(&self, entry: Stretch) {
        self.set(libc::F_UNLCK, entry.0 + USE, 1);
    }

    /// Whether nobody else uses the entry, and nobody will until [`end_use`](Self::end_use). It must
    /// not be in use by this holder.
    pub fn seize(&self, entry: Stretch) -> bool {
        self.set(libc::F_WRLCK, entry.0 + USE, 1)
    }

    /// Runs `change`, which makes or replaces the entry, while nobody else does. `None` when that
    /// takes too long.
    pub fn change<T>(&self, entry: Stretch, change: impl FnOnce() -> T) -> Option<T> {
        if !self.wait(libc::F_WRLCK, entry.0 + CHANGE) {
            return None;
        }
        let changed = change();
        self.set(libc::F_UNLCK, entry.0 + CHANGE, 1);
        Some(changed)
    }

    fn wait(&self, kind: i32, at: u64) -> bool {
        let began = Instant::now();
        while !self.set(kind, at, 1) {
            if began.elapsed() > MOMENTS {
                return false;
            }
            sleep(Duration::from_millis(2));
        }
        true
    }

    /// Sets a lock, if nobody else's is in its way. A file system without locks has none in the way.
    fn set(&self, kind: i32, start: u64, len: u64) -> bool {
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start as libc::off_t,
            l_len: len as libc::off_t,
            l_pid: 0,
        };
        let outcome = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock));
        !matches!(outcome, Err(nix::Error::EAGAIN | nix::Error::EACCES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_exclude_each_other_until_they_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Locks::open(directory.path(), true).unwrap();
        let (a, b) = (open(), open());
        let entry = Stretch::of("0123456789abcdef");
        let other = Stretch::of("1123456789abcdef");
        assert!(a.claim(entry, 0, 100));
        assert!(!b.claim(entry, 99, 200));
        assert!(b.claim(entry, 100, 200) && b.claim(other, 0, 100));
        a.release(entry, 50, 100);
        assert!(b.claim(entry, 50, 100) && !b.claim(entry, 49, 50));
        assert!(a.begin_use(entry) && b.begin_use(entry));
        a.end_use(entry);
        assert!(!a.seize(entry));
        drop(b);
        assert!(a.seize(entry), "a lock outlives its holder");
        assert!(a.claim(entry, 0, 200));
        assert_eq!(a.change(entry, || 1), Some(1));
    }
}
