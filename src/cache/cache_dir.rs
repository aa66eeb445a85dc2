//! The cache's directory as a whole: who uses which entry, and whether anything can be written.

use super::files::ENTRY;
use super::locks::{LockRange, Locks};
use super::meta::{self, Meta};
use crate::source::ObjectIdentity;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Tells backup programs that the content can be downloaded again (<https://bford.info/cachedir/>).
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                   # This is the cache of ringload. `ringload cache` lists, checks and empties it.\n";

/// Temporary directories older than this were left by a process that was killed.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

/// The directory of a cache.
#[derive(Debug)]
pub(super) struct CacheDir {
    pub path: PathBuf,
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
    /// cannot be written can still be read; then the second value is the reason.
    pub fn open(path: &Path) -> (Arc<Self>, Option<io::Error>) {
        let created = create_directory(path).and_then(|()| Locks::open(path, true));
        let (locks, refusal) = match created {
            Ok(locks) => (Some(locks), None),
            Err(refusal) => (Locks::open(path, false).ok(), Some(refusal)),
        };
        let cache = Self {
            path: path.to_owned(),
            locks,
            writable: refusal.is_none(),
            stopped_writing: AtomicBool::new(refusal.is_some()),
            warning: Mutex::default(),
            in_use: Mutex::default(),
        };
        if cache.writable {
            let tag = path.join("CACHEDIR.TAG");
            if !tag.exists() {
                let _ = fs::write(tag, TAG); // the tag is optional
            }
            cache.remove_leftovers();
        }
        (Arc::new(cache), refusal)
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
        // Errors cannot be cloned.
        let cause = match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        let error =
            crate::Error::from_io(format_args!("{action} in {}", self.path.display()), cause);
        self.warn(format!("{error}; loads go on without writing to the cache"));
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
        let entries = subdirectories(&self.path.join(address));
        let known = entries.filter_map(|entry| {
            let (meta, validated) =
                read_meta(&entry).filter(|(meta, _)| meta.address == address)?;
            Some((validated, meta.identity()?))
        });
        let (validated, identity) = known.max_by_key(|(validated, _)| *validated)?;
        // A time in the future is not trusted either: the clock was set back.
        let age = SystemTime::now().duration_since(validated).ok();
        Some(KnownObject { identity, age: age.filter(|_| validated != SystemTime::UNIX_EPOCH) })
    }

    /// Marks the entry with these names as in use. Waits while another process removes it.
    pub fn use_entry(self: &Arc<Self>, address: &str, identity: &str) -> EntryUse {
        let path = self.path.join(address).join(identity);
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
            let _ = fs::remove_dir(parent); // if it is empty
        }
        removed
    }

    /// Makes an entry's directory disappear at once, then removes its files.
    pub fn discard(&self, entry: &Path) -> io::Result<()> {
        let temporary = self.temporary_path();
        fs::rename(entry, &temporary)?;
        fs::remove_dir_all(&temporary)
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
        subdirectories(&self.path).filter(is_address).flat_map(|path| subdirectories(&path))
    }

    /// A new name for a directory that is being created or removed.
    pub fn temporary_path(&self) -> PathBuf {
        self.path.join(format!(".{:016x}", fastrand::u64(..)))
    }

    /// Removes temporary directories of processes that were killed.
    pub fn remove_leftovers(&self) {
        let is_temporary = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == 17 && name.starts_with('.')
        };
        for path in subdirectories(&self.path).filter(is_temporary) {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            if age.is_some_and(|age| age > TEMPORARY_AGE_MAX) {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// Creates the directory `path` if it does not exist.
fn create_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::from_raw_os_error(libc::ENOTDIR))
        }
        created => created,
    }
}

/// The names of the entry in the directory `entry`: those of its address and of its identity.
pub(super) fn entry_names(entry: &Path) -> Option<(&str, &str)> {
    Some((entry.parent()?.file_name()?.to_str()?, entry.file_name()?.to_str()?))
}

/// The metadata of the entry in the directory `entry`, and when its store last validated it.
pub(super) fn read_meta(entry: &Path) -> Option<(Meta, SystemTime)> {
    let file = File::open(entry.join(ENTRY)).ok()?;
    let validated = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
    let mut text = Vec::new();
    file.take(meta::BYTES_MAX as u64).read_to_end(&mut text).ok()?;
    Some((Meta::parse(&text)?, validated))
}

/// The directories in `directory`; none where it cannot be read.
fn subdirectories(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path())
}

/// The directories of other versions of the object whose entry is in the directory `entry`.
pub(super) fn other_versions(entry: &Path) -> impl Iterator<Item = PathBuf> {
    let versions = entry.parent().map(subdirectories).into_iter().flatten();
    versions.filter(move |other| other != entry)
}
