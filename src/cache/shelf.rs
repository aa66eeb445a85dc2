//! The cache's directory: finding, making and replacing entries.

use super::entry::{Entry, lock, touch};
use super::files::{ENTRY, Files, PAGES, PARTIAL, USED};
use super::key;
use super::locks::{Locks, PAGES_MAX, Stretch};
use super::meta::{self, Meta};
use super::pages::{SEAL_BYTES, Sealer};
use super::room::Room;
use crate::options::CacheSettings;
use crate::source::ObjectIdentity;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

/// Says to programs that make backups that this can be had again (<https://bford.info/cachedir/>).
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                   # This is the cache of ringload. `ringload cache` lists, checks and empties it.\n";

/// A cache's directory.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) directory: PathBuf,
    pub(super) locks: Option<Locks>,
    pub(super) room: Room,
    writable: bool,
    gave_up: AtomicBool,
    trouble: Mutex<Option<String>>,
    /// The entries that this process uses, by their directories.
    in_use: Mutex<HashMap<PathBuf, Weak<Entry>>>,
}

/// What was last known of an object.
#[derive(Debug)]
pub(super) struct Known {
    pub identity: ObjectIdentity,
    /// How long ago its store was last asked; `None` where that does not count any more.
    pub validated: Option<Duration>,
}

impl Shelf {
    /// Opens the cache that `settings` describe, and makes its directory if need be. Where it cannot
    /// be written, it can be read; the second value says why.
    pub fn open(settings: &CacheSettings) -> (Self, Option<io::Error>) {
        let directory = settings.dir.clone();
        let made = make_directory(&directory).and_then(|()| Locks::open(&directory, true));
        let (locks, writable, refusal) = match made {
            Ok(locks) => (Some(locks), true, None),
            Err(refusal) => (Locks::open(&directory, false).ok(), false, Some(refusal)),
        };
        let shelf = Self {
            locks,
            room: Room::new(settings.size),
            writable,
            gave_up: AtomicBool::new(refusal.is_some()),
            trouble: Mutex::default(),
            in_use: Mutex::default(),
            directory,
        };
        if shelf.writable {
            shelf.tag();
            super::room::sweep(&shelf.directory);
        }
        (shelf, refusal)
    }

    fn tag(&self) {
        let path = self.directory.join("CACHEDIR.TAG");
        if !path.exists() {
            // Nothing depends on it.
            let _ = fs::write(path, TAG);
        }
    }

    /// Whether anything may be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether nothing is written any more.
    pub fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// Why the cache does less than it should, if so.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Writes nothing any more, since `doing` so failed; told once.
    pub fn give_up(&self, doing: &str, refusal: &io::Error) {
        self.gave_up.store(true, Ordering::Relaxed);
        let error = crate::Error::from_io(
            format_args!("{doing} in {}", self.directory.display()),
            told(refusal),
        );
        self.note(format!("{error}; loads go on without writing to the cache"));
    }

    /// Notes a reason to do less; the first one is told.
    pub fn note(&self, sentence: String) {
        let mut trouble = lock(&self.trouble);
        if trouble.is_none() {
            tracing::warn!("{sentence}");
            *trouble = Some(sentence);
        }
    }

    /// What was last known of the object at `place`.
    pub fn known(&self, place: &str) -> Option<Known> {
        let entries = subdirectories(&self.directory.join(place));
        let known = entries.into_iter().filter_map(|directory| {
            let (meta, validated) = read_meta(&directory)?;
            let identity = meta.identity()?;
            Some((validated, identity))
        });
        let (validated, identity) = known.max_by_key(|(validated, _)| *validated)?;
        let counts = validated != SystemTime::UNIX_EPOCH;
        // A time to come (the clock was set back) does not count either.
        let validated = SystemTime::now().duration_since(validated).ok().filter(|_| counts);
        Some(Known { identity, validated })
    }

    /// The entry of the object with `identity` at `place`, which its store has just named or is
    /// trusted to have; made if it is not there. `None` where there can be none.
    pub fn entry(
        self: &Arc<Self>,
        place: &str,
        location: &str,
        identity: &ObjectIdentity,
        asked: bool,
    ) -> Option<Arc<Entry>> {
        let name = key::of_identity(identity);
        let sealer = Sealer::new(place, &name, identity.len_bytes);
        if !identity.is_distinctive() || sealer.pages() > PAGES_MAX {
            self.note(format!(
                "{location} cannot be cached: its server gives neither an ETag nor a Last-Modified \
                 to know it by"
            ));
            return None;
        }
        if !self.room.could_hold(identity.len_bytes) {
            self.note(format!("{location} is larger than the cache may get; it is not cached"));
            return None;
        }
        let directory = self.directory.join(place).join(&name);
        let stretch = Stretch::of_entry(place, &name);
        let mut in_use = lock(&self.in_use);
        if let Some(entry) = in_use.get(&directory).and_then(Weak::upgrade) {
            drop(in_use);
            self.found(&entry, asked);
            return Some(entry);
        }
        if let Some(locks) = &self.locks {
            locks.begin_use(stretch);
        }
        // Ends the use again when it is dropped.
        let len_bytes = identity.len_bytes;
        let entry = Entry::new(Arc::clone(self), directory.clone(), sealer, stretch, len_bytes);
        if !self.is_sound(&entry, location, identity) {
            let meta = Meta::new(location, identity);
            match self.make(&entry, &meta) {
                Ok(()) => {}
                Err(refusal) => {
                    drop(in_use); // the entry's end looks at it
                    self.give_up("make an entry", &refusal);
                    return None;
                }
            }
        }
        let entry = Arc::new(entry);
        in_use.retain(|_, entry| entry.strong_count() > 0);
        in_use.insert(directory, Arc::downgrade(&entry));
        drop(in_use);
        self.found(&entry, asked);
        Some(entry)
    }

    /// Notes that `entry` was used, and that its store was asked if so; removes what it replaces.
    fn found(&self, entry: &Entry, asked: bool) {
        if !self.writable {
            return;
        }
        entry.touch();
        if asked {
            touch(&entry.directory.join(ENTRY), SystemTime::now());
            let place = entry.directory.parent().unwrap_or(&self.directory);
            for other in subdirectories(place) {
                if other != entry.directory {
                    self.remove(&other);
                }
            }
        }
    }

    /// Whether the entry on disk is that of this object, and whole.
    fn is_sound(&self, entry: &Entry, location: &str, identity: &ObjectIdentity) -> bool {
        let is_it = read_meta(&entry.directory).is_some_and(|(meta, _)| {
            meta.location == location
                && meta
                    .identity()
                    .is_some_and(|its| key::of_identity(&its) == key::of_identity(identity))
        });
        is_it
            && Files::open(&entry.directory, false)
                .is_ok_and(|files| files.fit(entry.len_bytes, entry.sealer.pages()))
    }

    /// Makes an empty entry, in place of what may be there.
    fn make(&self, entry: &Entry, meta: &Meta) -> io::Result<()> {
        let Some(locks) = self.locks.as_ref().filter(|_| self.writable && !self.gave_up()) else {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        };
        let made = locks.change(entry.stretch, || {
            let sound = meta
                .identity()
                .is_some_and(|identity| self.is_sound(entry, &meta.location, &identity));
            if sound { Ok(()) } else { self.make_anew(entry, meta) }
        });
        made.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    fn make_anew(&self, entry: &Entry, meta: &Meta) -> io::Result<()> {
        let aside = self.aside();
        fs::create_dir(&aside)?;
        let fill = || {
            let sized = |name: &str, len: u64| File::create_new(aside.join(name))?.set_len(len);
            sized(PARTIAL, entry.len_bytes)?;
            sized(PAGES, entry.sealer.pages() * SEAL_BYTES)?;
            sized(USED, 0)?;
            fs::write(aside.join(ENTRY), meta.to_text())?;
            if let Some(place) = entry.directory.parent() {
                fs::create_dir_all(place)?;
            }
            if entry.directory.exists() {
                self.discard(&entry.directory)?;
            }
            fs::rename(&aside, &entry.directory)
        };
        let filled = fill();
        if filled.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        filled
    }

    /// A name for what is on its way in or out.
    fn aside(&self) -> PathBuf {
        self.directory.join(format!(".{:016x}", fastrand::u64(..)))
    }

    /// Removes an entry's directory: at once from sight, then its files.
    fn discard(&self, directory: &Path) -> io::Result<()> {
        let aside = self.aside();
        fs::rename(directory, &aside)?;
        fs::remove_dir_all(&aside)
    }

    /// Removes the entry in `directory`, unless it is in use. Whether it did.
    pub fn remove(&self, directory: &Path) -> bool {
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let (Some(place), Some(identity)) = (directory.parent().and_then(name), name(directory))
        else {
            return false;
        };
        let stretch = Stretch::of_entry(&place, &identity);
        // Held until it is gone, so that this process does not begin to use it.
        let in_use = lock(&self.in_use);
        let used = in_use.get(directory).is_some_and(|entry| entry.strong_count() > 0);
        let Some(locks) = self.locks.as_ref().filter(|_| self.writable && !used) else {
            return false;
        };
        if !locks.seize(stretch) {
            return false;
        }
        let removed = self.discard(directory).is_ok();
        locks.end_use(stretch);
        if let Some(place) = directory.parent() {
            let _ = fs::remove_dir(place); // if it is empty
        }
        removed
    }

    /// Whether `pages` are now for this process to fetch.
    pub fn claim(&self, stretch: Stretch, pages: &Range<u64>) -> bool {
        self.locks.as_ref().is_none_or(|locks| locks.claim(stretch, pages.start, pages.end))
    }

    /// Gives them back.
    pub fn release(&self, stretch: Stretch, pages: &Range<u64>) {
        if let Some(locks) = &self.locks {
            locks.release(stretch, pages.start, pages.end);
        }
    }

    /// Says that an entry is not in use any more; but it may be again by now.
    pub fn end_use(&self, directory: &Path, stretch: Stretch) {
        let in_use = lock(&self.in_use);
        let again = in_use.get(directory).is_some_and(|entry| entry.strong_count() > 0);
        if let Some(locks) = self.locks.as_ref().filter(|_| !again) {
            locks.end_use(stretch);
        }
    }

    /// The directories of all entries.
    pub fn entries(&self) -> Vec<PathBuf> {
        let is_place = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
        let places = subdirectories(&self.directory).into_iter().filter(is_place);
        places.flat_map(|place| subdirectories(&place)).collect()
    }
}

/// Makes `directory`, if it is not there.
fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::create_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::from_raw_os_error(libc::ENOTDIR))
        }
        made => made,
    }
}

/// What the entry in `directory` is, and when its store was last asked.
pub(super) fn read_meta(directory: &Path) -> Option<(Meta, SystemTime)> {
    let file = File::open(directory.join(ENTRY)).ok()?;
    let validated = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
    let mut text = Vec::new();
    file.take(meta::BYTES_MAX as u64).read_to_end(&mut text).ok()?;
    Some((Meta::parse(&text)?, validated))
}

/// The directories in `directory`; none where there is no such.
pub(super) fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

/// An error as it was; they cannot be cloned.
fn told(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
