//! Looking at a cache, and tidying it: what `ringload cache` does.

use super::entry::Entry;
use super::files::{DATA, Files};
use super::key;
use super::locks::Stretch;
use super::meta::Meta;
use super::pages::{MISSING, PAGE_BYTES, Sealer};
use super::room::{self, Used};
use super::shelf::{Shelf, read_meta};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::{CacheSettings, CacheSize, CacheValidate};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Pages that are read at a time to be checked.
const CHECKED_AT_ONCE: u64 = 1024;

/// The cache in a directory, to be looked at and tidied.
#[derive(Debug)]
pub struct CacheAdmin {
    shelf: Arc<Shelf>,
}

/// One object in the cache.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheEntry {
    /// Where the object is, without secrets.
    pub location: String,
    /// How long the object is, in bytes.
    pub len_bytes: u64,
    /// How much of it is there, in bytes.
    pub present_bytes: u64,
    /// How much disk it takes, in bytes.
    pub disk_bytes: u64,
    /// Whether all of it is there.
    pub is_complete: bool,
    /// When its store last said that it is still this.
    pub validated: SystemTime,
    /// When it was last opened.
    pub last_used: SystemTime,
    /// The file of its bytes; complete ones are plain safetensors files (or indexes).
    pub path: PathBuf,
}

/// What checking an entry showed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Checked {
    /// The entry.
    pub entry: CacheEntry,
    /// How much was checked, in bytes.
    pub checked_bytes: u64,
    /// Where pages are that were wrong, in bytes from the object's beginning; they count as missing
    /// from now on, where that could be written.
    pub wrong_pages: Vec<u64>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// How many entries.
    pub entries: usize,
    /// How much disk they took, in bytes.
    pub disk_bytes: u64,
    /// How much the rest takes.
    pub left_bytes: u64,
}

impl CacheAdmin {
    /// Opens the cache in `directory`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where there is none.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let dir = directory.into();
        let opening = || format!("open the cache {}", dir.display());
        if !fs::metadata(&dir).map_err(|e| Error::from_io(opening(), e))?.is_dir() {
            return Err(Error::from_io(opening(), io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        let (size, validate) = (CacheSize::Unlimited, CacheValidate::Never);
        let settings = CacheSettings { dir, size, validate, patient: false };
        let (shelf, refusal) = Shelf::open(&settings);
        if let Some(refusal) = refusal {
            tracing::debug!(%refusal, "the cache can be read only");
        }
        Ok(Self { shelf: Arc::new(shelf) })
    }

    /// All entries, those used last at the end. Damaged ones are left out: they are not used either.
    pub fn entries(&self) -> Vec<CacheEntry> {
        let used = room::usage(&self.shelf);
        used.into_iter().filter_map(|used| self.entry(used)).map(|(entry, ..)| entry).collect()
    }

    fn entry(&self, used: Used) -> Option<(CacheEntry, Meta, Arc<Entry>)> {
        let (meta, validated) = read_meta(&used.directory)?;
        let in_use = self.hold(&used.directory, &meta)?;
        let files = in_use.files().ok()?;
        if !files.fit(meta.len_bytes, in_use.sealer.pages()) {
            return None;
        }
        let present = present_bytes(&files, &in_use.sealer).ok()?;
        let entry = CacheEntry {
            location: meta.location.clone(),
            len_bytes: meta.len_bytes,
            present_bytes: present,
            disk_bytes: used.bytes,
            is_complete: used.directory.join(DATA).is_file() && present == meta.len_bytes,
            validated,
            last_used: used.last_used,
            path: super::files::data_path(&used.directory).ok()?,
        };
        Some((entry, meta, in_use))
    }

    /// The entry in `directory`, which is not evicted while this is held.
    fn hold(&self, directory: &Path, meta: &Meta) -> Option<Arc<Entry>> {
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let (place, identity) = (name(directory.parent()?)?, name(directory)?);
        if meta.identity().is_none_or(|its| key::of_identity(&its) != identity) {
            return None;
        }
        let stretch = Stretch::of_entry(&place, &identity);
        if let Some(locks) = &self.shelf.locks {
            locks.begin_use(stretch);
        }
        let sealer = Sealer::new(&place, &identity, meta.len_bytes);
        let shelf = Arc::clone(&self.shelf);
        Some(Arc::new(Entry::new(shelf, directory.to_owned(), sealer, stretch, meta.len_bytes)))
    }

    /// Reads every page of every entry and checks it; `progress` is told how many bytes more were.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Vec<Checked>> {
        let mut all = Vec::new();
        for used in room::usage(&self.shelf) {
            let directory = used.directory.clone();
            let Some((entry, _, in_use)) = self.entry(used) else { continue };
            let checked = check(&in_use, &mut progress).map_err(|cause| {
                Error::from_io(format_args!("check {}", directory.display()), cause)
            })?;
            let (checked_bytes, wrong_pages) = checked;
            all.push(Checked { entry, checked_bytes, wrong_pages });
        }
        Ok(all)
    }

    /// Removes what was used longest ago, and is not in use, until at most `most_bytes` are taken;
    /// and what is damaged, or was left by killed processes.
    pub fn prune(&self, most_bytes: u64) -> Pruned {
        room::sweep(&self.shelf.directory);
        let before = room::usage(&self.shelf);
        for used in &before {
            if read_meta(&used.directory).is_none() {
                self.shelf.remove(&used.directory);
            }
        }
        room::evict_to(&self.shelf, most_bytes);
        self.pruned(&before)
    }

    /// Removes the entries of `location`: of the object, or of all objects below it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where there are none, [`InvalidInput`](ErrorKind::InvalidInput)
    /// where one is in use.
    pub fn remove(&self, location: &Location) -> Result<Pruned> {
        let wanted = location.to_string();
        let below = format!("{}/", wanted.trim_end_matches('/'));
        let before = room::usage(&self.shelf);
        let is_wanted = |used: &&Used| {
            read_meta(&used.directory).is_some_and(|(meta, _)| {
                let without_query = meta.location.trim_end_matches("?...");
                let wanted = wanted.trim_end_matches("?...");
                without_query == wanted || meta.location.starts_with(&below)
            })
        };
        let named: Vec<_> = before.iter().filter(is_wanted).collect();
        if named.is_empty() {
            let sentence = format!(
                "{wanted} is not in the cache {}; `ringload cache ls` lists what is",
                self.shelf.directory.display()
            );
            return Err(Error::new(ErrorKind::NotFound, sentence));
        }
        for used in named {
            if !self.shelf.remove(&used.directory) && used.directory.exists() {
                let sentence = match self.shelf.is_writable() {
                    true => format!("{wanted} is in use; remove it when the load is done"),
                    false => "the cache cannot be written; remove it as its owner".to_owned(),
                };
                return Err(Error::new(ErrorKind::InvalidInput, sentence));
            }
        }
        Ok(self.pruned(&before))
    }

    fn pruned(&self, before: &[Used]) -> Pruned {
        let gone: Vec<_> = before.iter().filter(|used| !used.directory.exists()).collect();
        Pruned {
            entries: gone.len(),
            disk_bytes: gone.iter().map(|used| used.bytes).sum(),
            left_bytes: room::usage(&self.shelf).iter().map(|used| used.bytes).sum(),
        }
    }
}

/// How many bytes have seals.
fn present_bytes(files: &Files, sealer: &Sealer) -> io::Result<u64> {
    let pages = sealer.pages();
    let mut present = 0;
    for first in (0..pages).step_by(CHECKED_AT_ONCE as usize) {
        let range = first..pages.min(first + CHECKED_AT_ONCE);
        for (page, seal) in (first..).zip(files.seals(&range)?) {
            if seal != MISSING {
                present += sealer.end_of(&(page..page + 1)) - page * PAGE_BYTES;
            }
        }
    }
    Ok(present)
}

/// Checks all pages of `entry` that are there; gives how many bytes, and which were wrong.
fn check(entry: &Entry, progress: &mut impl FnMut(u64)) -> io::Result<(u64, Vec<u64>)> {
    let (files, sealer) = (entry.files()?, entry.sealer);
    let (mut checked, mut wrong) = (0, Vec::new());
    let pages = sealer.pages();
    let mut bytes = Vec::new();
    for first in (0..pages).step_by(CHECKED_AT_ONCE as usize) {
        let range = first..pages.min(first + CHECKED_AT_ONCE);
        let seals = files.seals(&range)?;
        if seals.iter().all(|&seal| seal == MISSING) {
            continue;
        }
        bytes.resize((sealer.end_of(&range) - first * PAGE_BYTES) as usize, 0);
        files.read(&mut bytes, first * PAGE_BYTES)?;
        files.forget(first * PAGE_BYTES, bytes.len() as u64);
        let of_pages = bytes.chunks(PAGE_BYTES as usize);
        for ((page, bytes), &seal) in (first..).zip(of_pages).zip(&seals) {
            if seal == MISSING {
                continue;
            }
            checked += bytes.len() as u64;
            if sealer.seal(page, bytes) != seal {
                wrong.push(page * PAGE_BYTES);
                if files.writable {
                    files.set_seals(page, &[MISSING])?;
                }
            }
        }
        progress(bytes.len() as u64);
    }
    Ok((checked, wrong))
}
