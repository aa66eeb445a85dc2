//! The cache's directory as a whole: who uses which entry, and whether anything can be written.

use super::files::{ENTRY, NAMES};
use super::locks::{LOCK, LockRange, Locks};
use super::meta::{self, Meta};
use super::root::CacheRoot;
use super::tag::{LISTINGS, is_hash};
use super::trust::Trust;
use crate::error::Error;
use crate::options::CacheAccess;
use crate::source::ObjectIdentity;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Temporary directories older than this were left by a process that was killed.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

/// The directory of a cache.
#[derive(Debug)]
pub(super) struct CacheDir {
    pub root: CacheRoot,
    /// `None` where the lock file can be neither made nor read.
    locks: Option<Locks>,
    writable: bool,
    stopped_writing: AtomicBool,
    warning: Mutex<Option<String>>,
    /// The entries that this process uses, and how often.
    in_use: Mutex<HashMap<PathBuf, usize>>,
}

/// The identity of an object, as its store last reported it.
#[derive(Debug)]
pub(super) struct KnownObject {
    pub identity: ObjectIdentity,
    /// The time since the store reported it; `None` where the store must be asked again.
    pub age: Option<Duration>,
}

/// An entry in use: no process evicts it until this is dropped.
#[derive(Debug)]
pub(super) struct EntryUse {
    pub cache: Arc<CacheDir>,
    /// The entry's directory.
    pub path: PathBuf,
    pub range: LockRange,
}

impl Drop for EntryUse {
    fn drop(&mut self) {
        let mut in_use = self.cache.in_use.lock();
        let count = in_use.get_mut(&self.path);
        if let Some(count) = count.filter(|count| **count > 1) {
            *count -= 1;
            return;
        }
        in_use.remove(&self.path);
        if let Some(locks) = &self.cache.locks {
            locks.unlock_use(self.range);
        }
    }
}

impl CacheDir {
    /// Opens the cache in `path`, and creates the directory if it is missing. A directory that
    /// cannot be written can still be read, unless it is not to be trusted; then the second value is
    /// the reason.
    pub fn open(path: &Path, access: CacheAccess) -> (Arc<Self>, Option<io::Error>) {
        let (root, refusal) = match CacheRoot::open(path, Trust::new(access), true) {
            Ok(root) => (root, None),
            Err(refusal) => (CacheRoot::unusable(path), Some(refusal)),
        };
        let (locks, refusal) = match (Locks::open(&root, true), refusal) {
            (Ok(locks), None) => (Some(locks), None),
            (Err(refusal), None) => (Locks::open(&root, false).ok(), Some(refusal)),
            (_, refusal) => (None, refusal),
        };
        // Without its tag, the cache could never be emptied.
        let refusal = refusal.or_else(|| root.tag().err().filter(|_| root.check_tag().is_err()));
        let cache = Self {
            root,
            locks,
            writable: refusal.is_none(),
            stopped_writing: AtomicBool::new(refusal.is_some()),
            warning: Mutex::default(),
            in_use: Mutex::default(),
        };
        if cache.writable {
            if let Err(untagged) = cache.root.check_tag() {
                cache.warn(untagged.to_string());
            }
            cache.remove_leftovers();
        }
        (Arc::new(cache), refusal)
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Whether the directory could be written when it was opened.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether writing has failed, so that nothing is written any more.
    pub fn stopped_writing(&self) -> bool {
        self.stopped_writing.load(Ordering::Relaxed)
    }

    /// Stops all writing because `action` failed with `error`. Logs this once.
    pub fn stop_writing(&self, action: &str, error: &io::Error) {
        self.stopped_writing.store(true, Ordering::Relaxed);
        let doing = format!("{action} in {}", self.path().display());
        // Errors cannot be cloned.
        let sentence = match (error.raw_os_error(), error.get_ref()) {
            (Some(errno), _) => {
                Error::from_io(doing, io::Error::from_raw_os_error(errno)).to_string()
            }
            (None, Some(own)) if own.is::<Error>() => own.to_string(),
            _ => Error::from_io(doing, io::Error::new(error.kind(), error.to_string())).to_string(),
        };
        self.warn(format!("{sentence}; loads go on without writing to the cache"));
    }

    /// The first reason why something is not cached.
    pub fn warning(&self) -> Option<String> {
        self.warning.lock().clone()
    }

    /// Remembers a reason why something is not cached; only the first one is logged and kept.
    pub fn warn(&self, sentence: String) {
        let mut warning = self.warning.lock();
        if warning.is_none() {
            tracing::warn!("{sentence}");
            *warning = Some(sentence);
        }
    }

    /// The identity that the object at this address had when its store last reported it.
    pub fn known_object(&self, address: &str) -> Option<KnownObject> {
        let entries = self.root.subdirectories(&self.path().join(address));
        let known = entries.into_iter().filter_map(|entry| {
            let (meta, validated) =
                self.read_meta(&entry).filter(|(meta, _)| meta.address == address)?;
            Some((validated, meta.identity()?))
        });
        let (validated, identity) = known.max_by_key(|(validated, _)| *validated)?;
        // A date in the future says nothing of the age, except to `never`, which asks for none.
        let age = SystemTime::now().duration_since(validated).unwrap_or(Duration::MAX);
        let age = (validated != SystemTime::UNIX_EPOCH).then_some(age);
        Some(KnownObject { identity, age })
    }

    /// Marks the entry with these names as in use. Waits while another process removes it.
    pub fn use_entry(self: &Arc<Self>, address: &str, identity: &str) -> EntryUse {
        let path = self.path().join(address).join(identity);
        let range = LockRange::of_entry(address, identity);
        let mut in_use = self.in_use.lock();
        let count = in_use.entry(path.clone()).or_default();
        if let Some(locks) = self.locks.as_ref().filter(|_| *count == 0) {
            locks.lock_use(range);
        }
        *count += 1;
        EntryUse { cache: Arc::clone(self), path, range }
    }

    /// Removes the entry in the directory `entry`, unless it is in use. Returns whether it was
    /// removed.
    pub fn remove(&self, entry: &Path) -> bool {
        let Some((address, identity)) = entry_names(entry) else { return false };
        let range = LockRange::of_entry(address, identity);
        // Held until the entry is gone, so that this process does not begin to use it.
        let in_use = self.in_use.lock();
        let free = self.writable && !in_use.contains_key(entry);
        let Some(locks) = self.locks.as_ref().filter(|locks| free && locks.try_lock_unused(range))
        else {
            return false;
        };
        let removed = self.discard(entry).is_ok();
        locks.unlock_use(range);
        if let Some(parent) = entry.parent() {
            let _ = self.root.remove_directory(parent, &[]); // if it is empty
        }
        removed
    }

    /// Makes an entry's directory disappear at once, then removes its files.
    pub fn discard(&self, entry: &Path) -> io::Result<()> {
        self.root.check_tag()?;
        let temporary = self.temporary_path();
        self.root.rename(entry, &temporary)?;
        self.root.remove_directory(&temporary, &NAMES)
    }

    /// Runs `change`, which creates or replaces the entry, while no other process does.
    ///
    /// # Errors
    /// The errors of `change`; [`TimedOut`](io::ErrorKind::TimedOut) when another process
    /// takes too long, [`ReadOnlyFilesystem`](io::ErrorKind::ReadOnlyFilesystem) where nothing is
    /// written.
    pub fn change(&self, entry: LockRange, change: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let locks = self.locks.as_ref().filter(|_| self.writable && !self.stopped_writing());
        let locks = locks.ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
        locks.change(entry, change).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Locks `pages` of an entry. Returns false where another process has locked any of them.
    pub fn try_lock_pages(&self, entry: LockRange, pages: &Range<u64>) -> bool {
        self.locks.as_ref().is_none_or(|locks| locks.try_lock_pages(entry, pages))
    }

    /// Unlocks `pages` of an entry.
    pub fn unlock_pages(&self, entry: LockRange, pages: &Range<u64>) {
        if let Some(locks) = &self.locks {
            locks.unlock_pages(entry, pages);
        }
    }

    /// The directories of all entries.
    pub fn entries(&self) -> impl Iterator<Item = PathBuf> {
        let is_address = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
        let addresses = self.root.subdirectories(self.path()).into_iter().filter(is_address);
        addresses.flat_map(|path| self.root.subdirectories(&path))
    }

    /// The directories of other versions of the object whose entry is in the directory `entry`.
    pub fn other_versions(&self, entry: &Path) -> impl Iterator<Item = PathBuf> {
        let versions = entry.parent().map(|parent| self.root.subdirectories(parent));
        versions.into_iter().flatten().filter(move |other| other != entry)
    }

    /// The metadata of the entry in the directory `entry`, and when its store last validated it.
    pub fn read_meta(&self, entry: &Path) -> Option<(Meta, SystemTime)> {
        let (text, validated) = self.root.read(&entry.join(ENTRY), meta::BYTES_MAX).ok()?;
        Some((Meta::parse(&text)?, validated))
    }

    /// Sets the modification time of the file `path`, if that is permitted.
    pub fn touch(&self, path: &Path, time: SystemTime) {
        let _ = self.root.file(path, true).and_then(|file| file.set_modified(time));
    }

    /// Removes all versions of the object whose entry is in the directory `entry`, even if they are in
    /// use.
    pub fn discard_object(&self, entry: &Path) {
        let Some(address) = entry.parent() else { return };
        for entry in self.root.subdirectories(address) {
            let _ = self.discard(&entry); // an entry that cannot be removed is harmless
        }
        let _ = self.root.remove_directory(address, &[]);
    }

    /// Removes the directory if it has nothing but listings and the files of an empty cache.
    pub fn remove_empty(&self) {
        let listings = self.path().join(LISTINGS);
        if self.root.subdirectories(self.path()).iter().any(|path| *path != listings) {
            return;
        }
        let names = self.root.names(&listings).unwrap_or_default();
        let names = names.iter().filter_map(|name| name.to_str());
        let names: Vec<_> = names.filter(|name| is_hash(name.as_bytes())).collect();
        let _ = self.root.remove_directory(&listings, &names);
        if self.root.subdirectories(self.path()).is_empty() {
            let _ = self.root.remove(&[LOCK]);
        }
    }

    /// A new name for a directory that is being created or removed.
    pub fn temporary_path(&self) -> PathBuf {
        self.path().join(format!(".{:016x}", fastrand::u64(..)))
    }

    /// Removes temporary directories of processes that were killed.
    pub fn remove_leftovers(&self) {
        let is_temporary = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == 17 && name.starts_with('.')
        };
        for path in self.root.subdirectories(self.path()).into_iter().filter(is_temporary) {
            let status = self.root.status(&path);
            let age = status.and_then(|status| status.modified.elapsed().ok());
            if age.is_some_and(|age| age > TEMPORARY_AGE_MAX) {
                let _ = self.root.remove_directory(&path, &NAMES);
            }
        }
    }
}

/// The names of the entry in the directory `entry`: those of its address and of its identity.
pub(super) fn entry_names(entry: &Path) -> Option<(&str, &str)> {
    Some((entry.parent()?.file_name()?.to_str()?, entry.file_name()?.to_str()?))
}
