//! Locks that all processes see, and that are released when their holder ends.
//!
//! Byte ranges of one file are locked by "open file description" locks: they belong to the open file,
//! not to the process, and the kernel releases them when it is closed or its process is killed. Each
//! entry has a range of 2^32 bytes of the file, chosen by 31 bits of its hash: a byte for each page,
//! and the last bytes for the entry as a whole. Two entries with the same range only wait for each
//! other.

use super::key;
use super::root::CacheRoot;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long to wait for a lock that others hold only briefly.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the lock file.
pub(super) const LOCK: &str = "lock";

/// Entries have fewer pages than this.
pub(super) const PAGES_MAX: u64 = (1 << 32) - 16;
const CHANGE: u64 = (1 << 32) - 2;
const USE: u64 = (1 << 32) - 1;

/// The open lock file.
#[derive(Debug)]
pub(super) struct Locks {
    file: File,
}

/// The range of one entry in the lock file.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockRange(u64);

impl LockRange {
    /// The range of the entry with these names.
    pub fn of_entry(address: &str, identity: &str) -> Self {
        Self::of_hash(&key::hash([address.as_bytes(), identity.as_bytes()]))
    }

    /// The range for a hash in hexadecimal digits.
    fn of_hash(hash: &str) -> Self {
        let digits = hash.get(..8).unwrap_or_default();
        let number = u64::from_str_radix(digits, 16).unwrap_or_default();
        Self((number & 0x7fff_ffff) << 32)
    }
}

impl Locks {
    /// Opens the lock file of a cache, and creates it if it is to be `writable`.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn open(root: &CacheRoot, writable: bool) -> io::Result<Self> {
        let path = root.path().join(LOCK);
        let file = if writable { root.file_or_new(&path)? } else { root.file(&path, false)? };
        Ok(Self { file })
    }

    /// Locks `pages` of the entry. Returns false where another holder has locked any of them.
    pub fn try_lock_pages(&self, entry: LockRange, pages: &Range<u64>) -> bool {
        self.set(libc::F_WRLCK, entry.0 + pages.start, pages.end - pages.start)
    }

    /// Unlocks `pages` of the entry.
    pub fn unlock_pages(&self, entry: LockRange, pages: &Range<u64>) {
        self.set(libc::F_UNLCK, entry.0 + pages.start, pages.end - pages.start);
    }

    /// Takes a shared lock on the entry, so that nobody removes it. Waits while another holder
    /// removes the entry; returns false when that takes too long.
    pub fn lock_use(&self, entry: LockRange) -> bool {
        self.wait(libc::F_RDLCK, entry.0 + USE)
    }

    /// Releases the lock that [`lock_use`](Self::lock_use) or
    /// [`try_lock_unused`](Self::try_lock_unused) took.
    pub fn unlock_use(&self, entry: LockRange) {
        self.set(libc::F_UNLCK, entry.0 + USE, 1);
    }

    /// Keeps others from using the entry until [`unlock_use`](Self::unlock_use). Returns false
    /// while another holder uses the entry. This holder must not use it.
    pub fn try_lock_unused(&self, entry: LockRange) -> bool {
        self.set(libc::F_WRLCK, entry.0 + USE, 1)
    }

    /// Runs `change`, which creates or replaces the entry, while no other holder does. `None` when
    /// another holder takes too long.
    pub fn change<T>(&self, entry: LockRange, change: impl FnOnce() -> T) -> Option<T> {
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
            if began.elapsed() > TIMEOUT {
                return false;
            }
            sleep(Duration::from_millis(2));
        }
        true
    }

    /// Sets a lock. Returns false if it conflicts with another holder's lock. A file system without
    /// locks never reports a conflict.
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
    use crate::cache::trust::Trust;
    use crate::options::CacheAccess;

    #[test]
    fn holders_exclude_each_other_until_they_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let trust = Trust::new(CacheAccess::Private);
        let root = CacheRoot::open(directory.path(), trust, true).unwrap();
        let open = || Locks::open(&root, true).unwrap();
        let (a, b) = (open(), open());
        let entry = LockRange::of_hash("0123456789abcdef");
        let other = LockRange::of_hash("1123456789abcdef");
        assert!(a.try_lock_pages(entry, &(0..100)));
        assert!(!b.try_lock_pages(entry, &(99..200)));
        assert!(b.try_lock_pages(entry, &(100..200)) && b.try_lock_pages(other, &(0..100)));
        a.unlock_pages(entry, &(50..100));
        assert!(b.try_lock_pages(entry, &(50..100)) && !b.try_lock_pages(entry, &(49..50)));
        assert!(a.lock_use(entry) && b.lock_use(entry));
        a.unlock_use(entry);
        assert!(!a.try_lock_unused(entry));
        drop(b);
        assert!(a.try_lock_unused(entry), "a lock outlives its holder");
        assert!(a.try_lock_pages(entry, &(0..200)));
        assert_eq!(a.change(entry, || 1), Some(1));
    }
}
