//! Listing, checking and emptying a cache, for `ringload cache`.

use super::cache_dir::{CacheDir, entry_names};
use super::entry::Entry;
use super::eviction::{EntryUsage, evict_to, total_bytes, usages};
use super::files::{DATA, EntryFiles, data_path};
use super::key;
use super::pages::{MISSING, PAGE_BYTES, PageChecksums};
use super::root::CacheRoot;
use super::trust::Trust;
use crate::error::{Error, ErrorKind, Result, option};
use crate::location::{Location, LocationText};
use crate::options::CacheAccess;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The number of pages that are read and checked at a time.
const PAGES_AT_ONCE: u64 = 1024;

/// Lists, checks and empties a cache directory.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// let cache = ringload::CacheAdmin::open("/var/cache/ringload")?;
/// for entry in cache.entries() {
///     println!("{}: {} of {} bytes", entry.location, entry.present_bytes, entry.len_bytes);
/// }
/// cache.prune(100 << 30)?; // keeps 100 GiB of what was used last
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CacheAdmin {
    cache: Arc<CacheDir>,
}

/// One object in the cache.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheEntry {
    /// The object's location, without secrets.
    pub location: LocationText,
    /// The length of the object in bytes.
    pub len_bytes: u64,
    /// How many of its bytes are in the cache.
    pub present_bytes: u64,
    /// The disk space of the entry in bytes.
    pub disk_bytes: u64,
    /// Whether all bytes of the object are in the cache.
    pub is_complete: bool,
    /// When the object's store last confirmed that the object is unchanged.
    pub validated: SystemTime,
    /// When the entry was last opened.
    pub last_used: SystemTime,
    /// The file with the object's bytes. The file of a complete entry is a copy of the object.
    pub path: PathBuf,
}

/// The result of checking an entry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Checked {
    /// The entry, as it was before the check.
    pub entry: CacheEntry,
    /// How many bytes were checked.
    pub checked_bytes: u64,
    /// The offsets of the pages that do not match their checksums, in bytes of the object. If the
    /// cache can be written, they count as missing from now on.
    pub wrong_pages: Vec<u64>,
}

/// The entries that were removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The number of removed entries.
    pub entries: usize,
    /// The disk space of the removed entries, in bytes.
    pub disk_bytes: u64,
    /// The disk space of the remaining entries, in bytes.
    pub left_bytes: u64,
}

impl CacheAdmin {
    /// Opens the cache in `directory`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the directory does not exist;
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it holds something other than a cache. An empty
    /// directory is an empty cache.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let fail = |e| Error::from_io(format!("open the cache {}", directory.display()), e);
        let trust = Trust::new(CacheAccess::Shared);
        let is_cache = CacheRoot::open(&directory, trust, false).and_then(|root| root.is_cache());
        if !is_cache.map_err(fail)? {
            let sentence = format!(
                "{} is not a cache of ringload: it has files, but neither the CACHEDIR.TAG nor the \
                 objects of a cache; check {} and RINGLOAD_CACHE_DIR",
                directory.display(),
                option("cache_dir")
            );
            return Err(Error::invalid_input(sentence));
        }
        // Nothing is loaded from the entries, so it does not matter who wrote them.
        let (cache, refusal) = CacheDir::open(&directory, CacheAccess::Shared);
        if let Some(refusal) = refusal {
            tracing::debug!(%refusal, "the cache can only be read");
        }
        Ok(Self { cache })
    }

    /// Opens the part of a download that has arrived.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`PermissionDenied`](ErrorKind::PermissionDenied) if another user may
    /// have made it.
    pub(crate) fn open_download(directory: &Path) -> Result<Self> {
        let (cache, refusal) = CacheDir::open(directory, CacheAccess::Download);
        match refusal {
            None => Ok(Self { cache }),
            Some(refusal) => {
                Err(Error::from_io(format_args!("write in {}", directory.display()), refusal))
            }
        }
    }

    /// All entries, least recently used first. Damaged entries, which no load uses, are left out.
    pub fn entries(&self) -> Vec<CacheEntry> {
        let usages = usages(&self.cache).into_iter();
        usages.filter_map(|usage| self.entry(usage)).map(|(entry, _)| entry).collect()
    }

    /// Removes all versions of the object of which `data_file` was the file.
    pub(crate) fn discard_object(&self, data_file: &Path) {
        if let Some(entry) = data_file.parent().filter(|entry| entry_names(entry).is_some()) {
            self.cache.discard_object(entry);
        }
    }

    /// Removes all entries, even if they are in use.
    pub(crate) fn discard_all(&self) {
        self.cache.entries().for_each(|entry| self.cache.discard_object(&entry));
    }

    /// Removes the entries without a single page, even if they are in use. Returns how many bytes the
    /// others have.
    pub(crate) fn discard_blank(&self) -> u64 {
        let (blank, others): (Vec<_>, Vec<_>) =
            self.entries().into_iter().partition(|entry| entry.present_bytes == 0);
        blank.iter().for_each(|entry| self.discard_object(&entry.path));
        others.iter().map(|entry| entry.present_bytes).sum()
    }

    /// Removes damaged entries and then the directory, if the cache has no others.
    pub(crate) fn remove_empty(&self) {
        let _ = self.prune(u64::MAX); // entries that cannot be removed are harmless
        self.cache.remove_empty();
    }

    /// The description of an entry, and the entry itself, which is not evicted until it is dropped.
    /// `None` if it is damaged.
    fn entry(&self, usage: EntryUsage) -> Option<(CacheEntry, Entry)> {
        let (meta, validated) = self.cache.read_meta(&usage.path)?;
        let (address, identity) = entry_names(&usage.path)?;
        if key::of_identity(&meta.identity()?) != identity || meta.address != address {
            return None;
        }
        let checksums = PageChecksums::new(address, identity, meta.len_bytes);
        let in_use = Entry::new(self.cache.use_entry(address, identity), checksums);
        let files = in_use.files().ok().filter(|files| files.fit(&checksums))?;
        let present_bytes = present_bytes(&files, &checksums).ok()?;
        let entry = CacheEntry {
            location: meta.location,
            len_bytes: meta.len_bytes,
            present_bytes,
            disk_bytes: usage.disk_bytes,
            is_complete: self.cache.root.has_file(&usage.path.join(DATA))
                && present_bytes == meta.len_bytes,
            validated,
            last_used: usage.last_used,
            path: data_path(&self.cache.root, &usage.path).ok()?,
        };
        Some((entry, in_use))
    }

    /// Reads and checks every page of every entry. `progress` is called with the number of bytes
    /// that were read since its last call.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Vec<Checked>> {
        let entries = usages(&self.cache).into_iter().filter_map(|usage| self.entry(usage));
        let checked = entries.map(|(entry, in_use)| {
            let (checked_bytes, wrong_pages) = check(&in_use, &mut progress).map_err(|cause| {
                Error::from_io(format_args!("check {}", in_use.path().display()), cause)
            })?;
            Ok(Checked { entry, checked_bytes, wrong_pages })
        });
        checked.collect()
    }

    /// Removes damaged entries, the remains of killed processes, and then entries that are not in
    /// use, least recently used first, until the cache has at most `most_bytes`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the directory was not empty when it became a cache,
    /// so that nothing in it is deleted.
    pub fn prune(&self, most_bytes: u64) -> Result<Pruned> {
        self.check_tag()?;
        let before = usages(&self.cache);
        for usage in before.iter().filter(|usage| self.cache.read_meta(&usage.path).is_none()) {
            self.cache.remove(&usage.path);
        }
        evict_to(&self.cache, most_bytes);
        Ok(self.pruned(&before))
    }

    /// Checks that entries may be deleted in the directory.
    fn check_tag(&self) -> Result<()> {
        let doing = format_args!("delete in {}", self.cache.path().display()).to_string();
        self.cache.root.check_tag().map_err(|untagged| Error::from_io(doing, untagged))
    }

    /// Removes the entries of the object at `location`, or of all objects below it. If `location` is
    /// without a user or a query, the objects of all users and queries belong to it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such entry,
    /// [`InvalidInput`](ErrorKind::InvalidInput) if one of the entries is in use, or if the directory
    /// was not empty when it became a cache, so that nothing in it is deleted.
    pub fn remove(&self, location: &Location) -> Result<Pruned> {
        let scope = match location {
            Location::Object(uri) => Some(key::scope(uri)),
            Location::File(_) => None, // files are not cached
        };
        let is_named = |usage: &&EntryUsage| {
            self.cache.read_meta(&usage.path).is_some_and(|(meta, _)| {
                meta.scopes.iter().any(|name| scope.as_ref() == Some(name))
            })
        };
        let before = usages(&self.cache);
        let named: Vec<_> = before.iter().filter(is_named).collect();
        if named.is_empty() {
            let sentence = format!(
                "{location} is not in the cache {}; `ringload cache ls` lists the objects in it, but \
                 does not show the users and queries of their locations. Give the location with its \
                 user and query, or without both to remove the objects of all users and queries",
                self.cache.path().display()
            );
            return Err(Error::new(ErrorKind::NotFound, sentence));
        }
        self.check_tag()?;
        for usage in named {
            if !self.cache.remove(&usage.path) && self.cache.root.status(&usage.path).is_some() {
                let sentence = match self.cache.is_writable() {
                    true => format!("{location} is in use; remove it when the load has ended"),
                    false => {
                        "the cache cannot be written; remove the entry as its owner".to_owned()
                    }
                };
                return Err(Error::new(ErrorKind::InvalidInput, sentence));
            }
        }
        Ok(self.pruned(&before))
    }

    fn pruned(&self, before: &[EntryUsage]) -> Pruned {
        let gone = || before.iter().filter(|usage| self.cache.root.status(&usage.path).is_none());
        Pruned {
            entries: gone().count(),
            disk_bytes: gone().map(|usage| usage.disk_bytes).sum(),
            left_bytes: total_bytes(&self.cache),
        }
    }
}

/// Ranges of at most [`PAGES_AT_ONCE`] pages that cover the object.
fn page_ranges(checksums: &PageChecksums) -> impl Iterator<Item = Range<u64>> + use<> {
    let pages = checksums.pages();
    let starts = (0..pages).step_by(PAGES_AT_ONCE as usize);
    starts.map(move |first| first..pages.min(first + PAGES_AT_ONCE))
}

/// The number of bytes in pages that are present.
fn present_bytes(files: &EntryFiles, checksums: &PageChecksums) -> io::Result<u64> {
    let mut present = 0;
    for range in page_ranges(checksums) {
        for (page, checksum) in range.clone().zip(files.checksums(&range)?) {
            if checksum != MISSING {
                present += checksums.len_of(&(page..page + 1)) as u64;
            }
        }
    }
    Ok(present)
}

/// Checks all pages of `entry` that are present. Returns how many bytes they have, and the offsets
/// of wrong pages.
fn check(entry: &Entry, progress: &mut impl FnMut(u64)) -> io::Result<(u64, Vec<u64>)> {
    let (files, of_object) = (entry.files()?, entry.checksums);
    let (mut checked, mut wrong) = (0, Vec::new());
    let mut bytes = Vec::new();
    for range in page_ranges(&of_object) {
        let checksums = files.checksums(&range)?;
        if checksums.iter().all(|&checksum| checksum == MISSING) {
            continue;
        }
        let offset = range.start * PAGE_BYTES;
        bytes.resize(of_object.len_of(&range), 0);
        files.read(&mut bytes, offset)?;
        files.drop_from_page_cache(offset, bytes.len() as u64);
        let pages = range.zip(bytes.chunks(PAGE_BYTES as usize)).zip(checksums);
        for ((page, bytes), checksum) in pages.filter(|(_, checksum)| *checksum != MISSING) {
            checked += bytes.len() as u64;
            if of_object.of_page(page, bytes) != checksum {
                wrong.push(page * PAGE_BYTES);
                if files.writable {
                    files.set_checksums(page, &[MISSING])?;
                }
            }
        }
        progress(bytes.len() as u64);
    }
    Ok((checked, wrong))
}
