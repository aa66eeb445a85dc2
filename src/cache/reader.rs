//! An engine's reader of an object of which the cache has some pages.
//!
//! ```text
//! read_at: which pages does the range begin with?
//!   present: read the file and check the pages; a wrong page is missing from then on
//!   missing: decide: fetch them and keep the lock, or wait until another load has fetched them
//! filled: the fetched bytes are shared with the writer, each part with its lock
//! ```

use super::entry::{Entry, PageRun};
use super::fetch_lock::{FetchDecision, FetchLock, decide};
use super::files::EntryFiles;
use super::open_cache::OpenCache;
use super::pages::{PAGE_BYTES, PageBytes};
use super::writer::WriteJob;
use crate::error::errno::{ErrnoAction, action};
use crate::error::{Error, ErrorKind};
use crate::ring::Window;
use crate::source::{Access, Attempt, Downgrade, ReadFuture, Reader, Source, Via};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;

/// Fewer bytes than this are checked on the engine's thread.
const INLINE_BYTES: usize = 128 << 10;

/// The maximum length of a read through a bounce buffer.
const BOUNCE_BYTES: u64 = 1 << 20;

type ReadOutcome<T> = (io::Result<T>, Window);

pub(super) struct CachedReader {
    cache: Arc<OpenCache>,
    entry: Arc<Entry>,
    files: Arc<EntryFiles>,
    /// Reads the cache's file. Without this reader, present pages are fetched too.
    file: Option<Box<dyn Reader>>,
    remote: Box<dyn Reader>,
    access: Access,
    /// The locks of pages that were fetched and not yet shared with the writer.
    fetched: RefCell<Vec<FetchLock>>,
}

impl CachedReader {
    pub fn new(
        cache: Arc<OpenCache>,
        entry: Arc<Entry>,
        files: Arc<EntryFiles>,
        remote: Box<dyn Reader>,
        access: &Access,
    ) -> Self {
        let file = entry.file_source().and_then(|file| Arc::new(file).reader(access).ok());
        let (access, fetched) = (access.clone(), RefCell::default());
        Self { cache, entry, files, file, remote, access, fetched }
    }

    /// One attempt to read the first bytes that the window still lacks.
    async fn read(&self, mut window: Window, offset: u64) -> ReadOutcome<Attempt> {
        let left = self.entry.checksums.len_bytes.saturating_sub(offset);
        let len = left.min(window.unfilled_len() as u64);
        let pages = self.entry.checksums.whole_pages(offset, len);
        if !offset.is_multiple_of(PAGE_BYTES) || pages.is_empty() {
            return self.read_unaligned(window, offset, len).await;
        }
        loop {
            let count = match (self.entry.first_run(&self.files, &pages), &self.file) {
                (PageRun::Present(checksums), Some(file)) => {
                    let outcome;
                    (outcome, window) = self.read_file(&**file, checksums, window, offset).await;
                    match outcome.transpose() {
                        None => continue,
                        Some(outcome) => return (outcome, window),
                    }
                }
                (PageRun::Present(checksums), None) => {
                    return self.fetch(None, checksums.len() as u64, window, offset).await;
                }
                (PageRun::Missing(count), _) => count,
            };
            let missing = pages.start..pages.start + count;
            match decide(&self.entry, &self.files, &missing, &self.access.stop).await {
                Ok(FetchDecision::Arrived) => {}
                Ok(FetchDecision::Fetch(lock)) => {
                    return self.fetch(lock, count, window, offset).await;
                }
                Err(error) => return (Err(io::Error::other(error)), window),
            }
        }
    }

    /// Reads a range that begins or ends in mid-page, as buffers of callers may. Present pages are
    /// read whole and the range is copied from them.
    async fn read_unaligned(
        &self,
        mut window: Window,
        offset: u64,
        len: u64,
    ) -> ReadOutcome<Attempt> {
        let end = offset + len.min(BOUNCE_BYTES);
        let pages = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let bytes = (end - offset) as usize;
        let Some(pages) = self.entry.read(&pages).filter(|_| len > 0) else {
            window.narrow(bytes);
            let (outcome, mut window) = self.remote.read_at(window, offset).await;
            window.widen();
            return (outcome, window);
        };
        let start = (offset % PAGE_BYTES) as usize;
        window.unfilled_mut()[..bytes].copy_from_slice(&pages[start..start + bytes]);
        let cached_bytes = self.entry.cached_before(offset..end);
        self.access.counters.cached(cached_bytes);
        (Ok(Attempt { bytes, via: via(cached_bytes, Via::Buffered) }), window)
    }

    /// Reads pages from the file. Returns `None` if the first of them turns out to be missing.
    async fn read_file(
        &self,
        file: &dyn Reader,
        mut checksums: Vec<u64>,
        mut window: Window,
        offset: u64,
    ) -> ReadOutcome<Option<Attempt>> {
        let entry = &self.entry;
        let first = offset / PAGE_BYTES;
        let wanted = first..first + checksums.len() as u64;
        window.narrow(checksums.len() * PAGE_BYTES as usize);
        let reading = self.cache.checks.reading();
        let (outcome, mut window) = file.read_at(window, offset).await;
        drop(reading);
        let attempt = match outcome {
            Ok(attempt) => attempt,
            Err(error) => {
                window.widen();
                // The engine handles these errors. Other disk errors do not fail the load: the
                // pages are fetched.
                if matches!(action(&error), ErrnoAction::Retry | ErrnoAction::Downgrade) {
                    return (Err(error), window);
                }
                tracing::debug!(%error, entry = %entry.path().display(), "cannot be read");
                entry.mark_wrong(wanted);
                return (Ok(None), window);
            }
        };
        let whole = entry.checksums.whole_pages(offset, attempt.bytes as u64);
        checksums.truncate((whole.end - whole.start) as usize);
        let wrong;
        (wrong, window) = self.wrong_pages(first, window, checksums).await;
        window.widen();
        if whole.is_empty() {
            // The read returned less than one page.
            entry.mark_wrong(wanted);
            return (Ok(None), window);
        }
        let right = wrong.first().copied().unwrap_or(whole.end);
        entry.mark_wrong(wrong);
        if right == first {
            return (Ok(None), window);
        }
        let bytes = entry.checksums.len_of(&(first..right));
        let cached_bytes = entry.cached_before(offset..offset + bytes as u64);
        self.access.counters.cached(cached_bytes);
        if cached_bytes > 0 {
            window.record_path("cache");
        }
        (Ok(Some(Attempt { bytes, via: via(cached_bytes, attempt.via) })), window)
    }

    /// The numbers of the pages that do not match their checksums, among the pages from `first` on
    /// that were just read into the window.
    ///
    /// The pages are checked on another thread. If the engine's thread computed the checksums, it
    /// would submit no reads meanwhile, and the disk would idle.
    async fn wrong_pages(
        &self,
        first: u64,
        mut window: Window,
        checksums: Vec<u64>,
    ) -> (Vec<u64>, Window) {
        let of_object = self.entry.checksums;
        let pages = first..first + checksums.len() as u64;
        let bytes = if pages.is_empty() { 0 } else { of_object.len_of(&pages) };
        let check = move || {
            let bytes = &window.unfilled_mut()[..bytes];
            (of_object.mismatches(first, bytes, &checksums), window)
        };
        if bytes < INLINE_BYTES {
            return check();
        }
        let _permit = self.cache.checks.permit().await;
        self.access.backend.on_thread(check).await
    }

    /// Fetches `count` pages.
    async fn fetch(
        &self,
        lock: Option<FetchLock>,
        count: u64,
        mut window: Window,
        offset: u64,
    ) -> ReadOutcome<Attempt> {
        window.narrow((count * PAGE_BYTES) as usize);
        let (outcome, mut window) = self.remote.read_at(window, offset).await;
        window.widen();
        match &outcome {
            Ok(_) => self.fetched.borrow_mut().extend(lock),
            Err(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                if inner.is_some_and(|error| error.kind() == ErrorKind::Changed) {
                    self.entry.invalidate();
                }
            }
        }
        (outcome, window)
    }

    /// Passes the fetched bytes of `window` to the writer.
    fn share(&self, window: &mut Window, offset: u64) {
        let of_object = self.entry.checksums;
        let whole = of_object.whole_pages(offset, window.filled() as u64);
        let of_window = |lock: &mut FetchLock| whole.contains(&lock.pages.start);
        let locks: Vec<_> = self.fetched.borrow_mut().extract_if(.., of_window).collect();
        if locks.is_empty() {
            return;
        }
        if self.cache.dir.stopped_writing() {
            self.access.counters.note(self.cache.dir.warning());
            return;
        }
        let shared = window.share();
        for lock in locks {
            let pages = lock.pages.start..lock.pages.end.min(whole.end);
            let len = of_object.len_of(&pages);
            let reservation = self.cache.writer.reserve(&self.access.counters, len as u64);
            if reservation.is_none() {
                continue;
            }
            let start = (pages.start * PAGE_BYTES - offset) as usize;
            let (checksums, bytes) = match &shared {
                Some(shared) => {
                    let part = shared.slice(start..start + len);
                    let checksums = of_object.of_pages(pages.start, window.shared_bytes(&part));
                    (checksums, PageBytes::Slot(part))
                }
                None => {
                    // The bytes are copied, because the memory belongs to the caller again when the
                    // read ends.
                    let bytes = &window.filled_bytes()[start..start + len];
                    (of_object.of_pages(pages.start, bytes), PageBytes::Owned(bytes.to_vec()))
                }
            };
            self.cache.writer.push(WriteJob {
                entry: Arc::clone(&self.entry),
                files: Arc::clone(&self.files),
                first_page: pages.start,
                checksums,
                bytes,
                lock: Some(lock),
                reservation,
            });
        }
        self.access.counters.note(self.cache.dir.warning());
    }
}

/// The path of bytes that were read from the file `from_file`, of which `cached_bytes` were there before
/// the process opened the object. Bytes that the process has just downloaded came from the store.
fn via(cached_bytes: u64, from_file: Via) -> Via {
    if cached_bytes > 0 { from_file } else { Via::Http }
}

impl Reader for CachedReader {
    fn read_at(&self, window: Window, offset: u64) -> ReadFuture<'_> {
        Box::pin(self.read(window, offset))
    }

    fn initial_downgrade(&self) -> Option<Downgrade> {
        self.file.as_ref()?.initial_downgrade()
    }

    fn downgrade_count(&self) -> usize {
        self.file.as_ref().map_or(0, |file| file.downgrade_count())
    }

    fn downgrade(&self, refusal: &io::Error) -> Option<Downgrade> {
        self.file.as_ref()?.downgrade(refusal)
    }

    fn filled(&self, window: &mut Window, offset: u64) {
        self.share(window, offset);
    }
}
