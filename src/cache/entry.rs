//! The cache entry of one object: which of its pages are present, and reading and writing them.

use super::cache_dir::EntryUse;
use super::files::{DATA, ENTRY, EntryFiles, PARTIAL, data_path};
use super::pages::{MISSING, PAGE_BYTES, PageBytes, PageChecksums};
use crate::ring::Part;
use crate::source::FileSource;
use crate::sync::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// A gap of fewer present pages than this between missing pages is fetched with them, as a second
/// request would cost more.
const GAP_PAGES: usize = 32;

/// How many bytes of lent memory are copied and written at a time.
const COPY_BYTES: usize = 2 << 20;

/// An entry in use.
#[derive(Debug)]
pub(super) struct Entry {
    pub in_use: EntryUse,
    pub checksums: PageChecksums,
    files: Mutex<Weak<EntryFiles>>,
    /// Pages whose bytes do not match their checksums: they count as missing until they are written
    /// again.
    wrong: Mutex<BTreeSet<u64>>,
    /// The ranges of pages that this process fetches: their ends by their starts.
    pub fetching: Mutex<BTreeMap<u64, u64>>,
    /// Whether another process that fetches pages has stalled.
    pub skips_waiting: AtomicBool,
    /// No page before this one is missing.
    present_up_to: AtomicU64,
    /// The pages that the store sent when this process opened the object, until a load has read them.
    sent_at_opening: Mutex<BTreeSet<u64>>,
}

/// The longest run of pages at the start of a range that are all present or all missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PageRun {
    /// Present pages, with these checksums.
    Present(Vec<u64>),
    /// The number of missing pages.
    Missing(u64),
}

impl Entry {
    /// Creates the handle of the entry that `in_use` keeps from being evicted.
    pub fn new(in_use: EntryUse, checksums: PageChecksums) -> Self {
        Self {
            in_use,
            checksums,
            files: Mutex::default(),
            wrong: Mutex::default(),
            fetching: Mutex::default(),
            skips_waiting: AtomicBool::new(false),
            present_up_to: AtomicU64::new(0),
            sent_at_opening: Mutex::default(),
        }
    }

    /// Records that the store sent `pages` when the object was opened. The load that follows finds them
    /// on disk, but does not owe them to the cache.
    pub fn sent_at_opening(&self, pages: Range<u64>) {
        self.sent_at_opening.lock().extend(pages);
    }

    /// How many of the bytes `range`, which a load has read from the disk, were there before this
    /// process opened the object.
    pub fn cached_before(&self, range: Range<u64>) -> u64 {
        let mut sent = self.sent_at_opening.lock();
        let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
        let among: Vec<_> = sent.range(pages).copied().collect();
        let mut bytes = range.end - range.start;
        for page in among {
            let (start, end) = (page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
            bytes -= range.end.min(end) - range.start.max(start);
            if range.end >= end.min(self.checksums.len_bytes) {
                sent.remove(&page);
            }
        }
        bytes
    }

    /// The entry's directory.
    pub fn path(&self) -> &Path {
        &self.in_use.path
    }

    /// The entry's files, opened if nobody has them open now.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn files(&self) -> io::Result<Arc<EntryFiles>> {
        let mut files = self.files.lock();
        if let Some(files) = files.upgrade() {
            return Ok(files);
        }
        let cache = &self.in_use.cache;
        let opened = EntryFiles::open(&cache.root, self.path(), cache.is_writable())?;
        let opened = Arc::new(opened);
        *files = Arc::downgrade(&opened);
        Ok(opened)
    }

    /// The data file as a source that does not check the bytes.
    pub fn file_source(&self) -> Option<FileSource> {
        let open = || {
            let path = data_path(&self.in_use.cache.root, self.path()).ok()?;
            let trusted = self.in_use.cache.root.file(&path, false).ok()?;
            FileSource::open_growing(&path).ok().filter(|source| source.is(&trusted))
        };
        open().or_else(open) // the file may be renamed between the two steps
    }

    /// Whether every page has a checksum.
    pub fn is_complete(&self) -> bool {
        self.has_data_file() || self.misses_no_page()
    }

    fn has_data_file(&self) -> bool {
        self.in_use.cache.root.has_file(&self.path().join(DATA))
    }

    fn misses_no_page(&self) -> bool {
        let pages = self.checksums.pages();
        let from = self.present_up_to.load(Ordering::Relaxed);
        let missing = self.files().and_then(|files| files.first_missing(from..pages));
        if let Ok(missing) = &missing {
            self.present_up_to.fetch_max(missing.unwrap_or(pages), Ordering::Relaxed);
        }
        matches!(missing, Ok(None))
    }

    /// The run at the start of `pages`, of at least one page.
    pub fn first_run(&self, files: &EntryFiles, pages: &Range<u64>) -> PageRun {
        let Ok(mut checksums) = files.checksums(pages) else {
            return PageRun::Missing(pages.end - pages.start);
        };
        for page in self.wrong.lock().range(pages.clone()) {
            checksums[(page - pages.start) as usize] = MISSING;
        }
        let present = checksums.iter().take_while(|&&checksum| checksum != MISSING).count();
        if present > 0 {
            checksums.truncate(present);
            return PageRun::Present(checksums);
        }
        let mut missing = 0;
        let next = |from: usize| checksums[from..].iter().position(|&sum| sum == MISSING);
        while let Some(gap) = next(missing).filter(|&gap| gap <= GAP_PAGES) {
            missing += gap + 1;
        }
        PageRun::Missing(missing as u64)
    }

    /// Whether `page` is present.
    pub fn has_page(&self, files: &EntryFiles, page: u64) -> bool {
        matches!(self.first_run(files, &(page..page + 1)), PageRun::Present(_))
    }

    /// The bytes of `pages`, if all of them are present and match their checksums.
    pub fn read(&self, pages: &Range<u64>) -> Option<Vec<u8>> {
        let files = self.files().ok()?;
        match self.first_run(&files, pages) {
            PageRun::Present(checksums) if checksums.len() as u64 == pages.end - pages.start => {
                let mut bytes = vec![0; self.checksums.len_of(pages)];
                files.read(&mut bytes, pages.start * PAGE_BYTES).ok()?;
                let wrong = self.checksums.mismatches(pages.start, &bytes, &checksums);
                let is_right = wrong.is_empty();
                self.mark_wrong(wrong);
                is_right.then_some(bytes)
            }
            _ => None,
        }
    }

    /// Counts `pages`, in ascending order, as missing.
    pub fn mark_wrong(&self, pages: impl IntoIterator<Item = u64>) {
        let mut pages = pages.into_iter().peekable();
        let Some(&first) = pages.peek() else { return };
        let entry = self.path().display();
        tracing::debug!(%entry, first, "cached pages are wrong; they are fetched again");
        self.present_up_to.fetch_min(first, Ordering::Relaxed);
        self.wrong.lock().extend(pages);
    }

    /// Writes the pages from `first` on, whose contents are `bytes`, and then their `checksums`,
    /// which were computed when the bytes arrived.
    ///
    /// Consumers may change the bytes of a slot at any moment once it is lent. Then the bytes are
    /// copied, and only those pages of the copy are written that match their checksums. So an entry
    /// that has all checksums has the object's bytes, also for programs that ignore checksums.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn write(
        &self,
        files: &EntryFiles,
        first: u64,
        checksums: &[u64],
        bytes: &PageBytes,
    ) -> io::Result<()> {
        match bytes {
            PageBytes::Owned(bytes) => self.write_pages(files, first, checksums, bytes),
            PageBytes::Slot(part) => match part.borrow() {
                Some(bytes) => self.write_pages(files, first, checksums, &bytes),
                None => self.write_copy(files, first, checksums, part),
            },
        }
    }

    fn write_copy(
        &self,
        files: &EntryFiles,
        mut first: u64,
        checksums: &[u64],
        part: &Part,
    ) -> io::Result<()> {
        let page = PAGE_BYTES as usize;
        let mut memory = vec![0; part.len().min(COPY_BYTES) + page];
        let start = memory.as_ptr().align_offset(page).min(page); // for direct writes
        for (checksums, at) in checksums.chunks(COPY_BYTES / page).zip((0..).step_by(COPY_BYTES)) {
            let len = COPY_BYTES.min(part.len() - at);
            let copy = &mut memory[start..start + len];
            part.slice(at..at + len).copy_to(copy);
            let wrong = self.checksums.mismatches(first, copy, checksums);
            let ends = wrong.iter().map(|wrong| (wrong - first) as usize);
            let mut right = 0;
            for end in ends.chain([checksums.len()]) {
                if right < end {
                    let bytes = &copy[right * page..len.min(end * page)];
                    self.write_pages(files, first + right as u64, &checksums[right..end], bytes)?;
                }
                right = end + 1;
            }
            first += checksums.len() as u64;
        }
        Ok(())
    }

    fn write_pages(
        &self,
        files: &EntryFiles,
        first: u64,
        checksums: &[u64],
        bytes: &[u8],
    ) -> io::Result<()> {
        files.write(bytes, first * PAGE_BYTES)?;
        files.set_checksums(first, checksums)?;
        let mut wrong = self.wrong.lock();
        if !wrong.is_empty() {
            let end = first + checksums.len() as u64;
            wrong.retain(|page| !(first..end).contains(page));
        }
        Ok(())
    }

    /// Syncs what was written to the disk, and renames the data file when the entry is complete.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn commit(&self) -> io::Result<()> {
        self.files()?.sync()?;
        if self.has_data_file() || !self.misses_no_page() {
            return Ok(());
        }
        let root = &self.in_use.cache.root;
        match root.rename(&self.path().join(PARTIAL), &self.path().join(DATA)) {
            // Another process has renamed the file already.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.has_data_file() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => root.sync_directory(self.path()),
        }
    }

    /// Records that the object may have been replaced in its store, so that the next load asks the
    /// store.
    pub fn invalidate(&self) {
        self.in_use.cache.touch(&self.path().join(ENTRY), SystemTime::UNIX_EPOCH);
    }
}
