//! One object's entry: which of its pages are there, and are right.

use super::files::{DATA, Files, PARTIAL, USED};
use super::locks::Stretch;
use super::pages::{MISSING, PAGE_BYTES, Sealer};
use super::shelf::Shelf;
use super::writer::Bytes;
use crate::ring::Part;
use crate::source::FileSource;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// An entry in use.
#[derive(Debug)]
pub(super) struct Entry {
    pub shelf: Arc<Shelf>,
    pub directory: PathBuf,
    pub sealer: Sealer,
    pub stretch: Stretch,
    pub len_bytes: u64,
    files: Mutex<Weak<Files>>,
    /// Pages found to be wrong, which count as missing until they are written again.
    wrong: Mutex<BTreeSet<u64>>,
    /// What this process fetches, by first page.
    pub claimed: Mutex<BTreeMap<u64, u64>>,
    /// Whether waiting for others was in vain.
    pub impatient: AtomicBool,
    /// No page before this one is missing.
    known_up_to: AtomicU64,
}

/// What stands at the front of a range of pages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PageRun {
    /// So many pages that are there, with these seals.
    Present(Vec<u64>),
    /// So many pages that are not.
    Missing(u64),
}

/// Bytes that are lent are copied and written so many at a time.
const COPIED_BYTES: usize = 2 << 20;

/// Fewer present pages than this between missing ones are fetched with them: a request costs more.
const GAP_PAGES: usize = 32;

impl Entry {
    /// The entry in `directory`, which is marked as in use until this is dropped.
    pub fn new(
        shelf: Arc<Shelf>,
        directory: PathBuf,
        sealer: Sealer,
        stretch: Stretch,
        len_bytes: u64,
    ) -> Self {
        Self {
            shelf,
            directory,
            sealer,
            stretch,
            len_bytes,
            files: Mutex::default(),
            wrong: Mutex::default(),
            claimed: Mutex::default(),
            impatient: AtomicBool::new(false),
            known_up_to: AtomicU64::new(0),
        }
    }

    /// Its files, opened if nobody has them open now.
    ///
    /// # Errors
    /// What the system says.
    pub fn files(&self) -> io::Result<Arc<Files>> {
        let mut files = lock(&self.files);
        if let Some(files) = files.upgrade() {
            return Ok(files);
        }
        let opened = Arc::new(Files::open(&self.directory, self.shelf.is_writable())?);
        *files = Arc::downgrade(&opened);
        Ok(opened)
    }

    /// The file of its bytes as a source, which does not check them.
    pub fn file_source(&self) -> Option<FileSource> {
        let open =
            || FileSource::open_growing(&super::files::data_path(&self.directory).ok()?).ok();
        // It may be renamed just then.
        open().or_else(open)
    }

    /// Whether every page is there, as far as the seals say.
    pub fn is_complete(&self) -> bool {
        self.directory.join(DATA).is_file() || self.is_full()
    }

    fn is_full(&self) -> bool {
        let pages = self.sealer.pages();
        let from = self.known_up_to.load(Ordering::Relaxed);
        let missing = self.files().and_then(|files| files.first_missing(from..pages));
        if let Ok(missing) = &missing {
            self.known_up_to.fetch_max(missing.unwrap_or(pages), Ordering::Relaxed);
        }
        matches!(missing, Ok(None))
    }

    /// What stands at the front of `pages`, at least one.
    pub fn front(&self, files: &Files, pages: &Range<u64>) -> PageRun {
        let all = pages.end - pages.start;
        let Ok(mut seals) = files.seals(pages) else { return PageRun::Missing(all) };
        for page in lock(&self.wrong).range(pages.clone()) {
            seals[(page - pages.start) as usize] = MISSING;
        }
        let present = seals.iter().take_while(|&&seal| seal != MISSING).count();
        if present > 0 {
            seals.truncate(present);
            return PageRun::Present(seals);
        }
        let mut missing = 0;
        while let Some(gap) = seals[missing..].iter().position(|&seal| seal == MISSING) {
            if gap > GAP_PAGES {
                break;
            }
            missing += gap + 1;
        }
        PageRun::Missing(missing as u64)
    }

    /// Whether `page` is there.
    pub fn has(&self, files: &Files, page: u64) -> bool {
        !lock(&self.wrong).contains(&page)
            && files.seals(&(page..page + 1)).is_ok_and(|seals| seals != [MISSING])
    }

    /// The bytes of `pages`, if all of them are there and right.
    pub fn read(&self, pages: &Range<u64>) -> Option<Vec<u8>> {
        let files = self.files().ok()?;
        let start = pages.start * PAGE_BYTES;
        let all = pages.end - pages.start;
        match self.front(&files, pages) {
            PageRun::Present(seals) if seals.len() as u64 == all => {
                let mut bytes = vec![0; (self.sealer.end_of(pages) - start) as usize];
                files.read(&mut bytes, start).ok()?;
                let wrong = self.sealer.wrong(pages.start, &bytes, &seals);
                let right = wrong.is_empty();
                self.distrust(wrong);
                right.then_some(bytes)
            }
            _ => None,
        }
    }

    /// Counts these pages, in order, as missing.
    pub fn distrust(&self, pages: impl IntoIterator<Item = u64>) {
        let mut pages = pages.into_iter().peekable();
        let Some(&first) = pages.peek() else { return };
        let entry = self.directory.display();
        tracing::debug!(%entry, first, "cached pages are wrong; they are fetched again");
        self.known_up_to.fetch_min(first, Ordering::Relaxed);
        lock(&self.wrong).extend(pages);
    }

    /// Writes `bytes`, the pages from `first` on, and their checksums, which were computed when the
    /// bytes arrived.
    ///
    /// Once the bytes are lent to others, who may change them at any moment, they are copied first,
    /// and those pages of the copy are written that have their checksums: so where all checksums are
    /// there, the file has the object's bytes, also for those who read it without checksums.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, files: &Files, first: u64, seals: &[u64], bytes: &Bytes) -> io::Result<()> {
        match bytes {
            Bytes::Own(bytes) => self.write_pages(files, first, seals, bytes),
            Bytes::Slot(part) => match part.borrow() {
                Some(bytes) => self.write_pages(files, first, seals, &bytes),
                None => self.write_copy(files, first, seals, part),
            },
        }
    }

    fn write_copy(&self, files: &Files, first: u64, seals: &[u64], part: &Part) -> io::Result<()> {
        let page = PAGE_BYTES as usize;
        // Aligned for direct writes.
        let mut memory = vec![0; part.len().min(COPIED_BYTES) + page];
        let start = memory.as_ptr().align_offset(page).min(page);
        for (seals, at) in seals.chunks(COPIED_BYTES / page).zip((0..).step_by(COPIED_BYTES)) {
            let len = COPIED_BYTES.min(part.len() - at);
            let copy = &mut memory[start..start + len];
            part.slice(at..at + len).copy_to(copy);
            let of_copy = first + (at / page) as u64;
            let mut right = 0;
            let wrong = self.sealer.wrong(of_copy, copy, seals);
            let ends = wrong.iter().map(|wrong| (wrong - of_copy) as usize).chain([seals.len()]);
            for end in ends {
                if right < end {
                    let bytes = &copy[right * page..len.min(end * page)];
                    self.write_pages(files, of_copy + right as u64, &seals[right..end], bytes)?;
                }
                right = end + 1;
            }
        }
        Ok(())
    }

    fn write_pages(
        &self,
        files: &Files,
        first: u64,
        seals: &[u64],
        bytes: &[u8],
    ) -> io::Result<()> {
        files.write(bytes, first * PAGE_BYTES)?;
        files.set_seals(first, seals)?;
        let mut wrong = lock(&self.wrong);
        if !wrong.is_empty() {
            let end = first + seals.len() as u64;
            wrong.retain(|page| !(first..end).contains(page));
        }
        Ok(())
    }

    /// Brings what was written to the disk, and gives the data its name when it is complete.
    ///
    /// # Errors
    /// What the system says.
    pub fn settle(&self) -> io::Result<()> {
        let files = self.files()?;
        files.sync()?;
        let complete = self.directory.join(DATA);
        if complete.exists() || !self.is_full() {
            return Ok(());
        }
        match fs::rename(self.directory.join(PARTIAL), &complete) {
            // Another process has done so.
            Err(error) if error.kind() == io::ErrorKind::NotFound && complete.exists() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(&self.directory)?.sync_all(),
        }
    }

    /// Notes that it was used now.
    pub fn touch(&self) {
        touch(&self.directory.join(USED), SystemTime::now());
    }

    /// Notes that its store says it has another object now, or may.
    pub fn expire(&self) {
        touch(&self.directory.join(super::files::ENTRY), SystemTime::UNIX_EPOCH);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shelf.end_use(&self.directory, self.stretch);
    }
}

/// Sets when `path` was modified, if that is allowed.
pub(super) fn touch(path: &std::path::Path, at: SystemTime) {
    let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(at));
}

/// Also after a panic elsewhere: what is locked here is consistent between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
