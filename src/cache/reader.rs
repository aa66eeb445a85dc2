//! One engine's reader of an object that is on disk in part.
//!
//! ```text
//! read_at: what stands at the front of the range?
//!   present: read the file, check the seals; a wrong page is missing from then on
//!   missing: one's turn? fetch it, and remember the claim    not yet? wait, and look again
//! filled: what was fetched is shared with the writer, each part with its claim
//! ```

use super::claim::{Claim, Turn, turn};
use super::entry::{Entry, PageRun};
use super::files::Files;
use super::pages::{PAGE_BYTES, Sealer};
use super::source::CachedSource;
use super::writer::{Bytes, Job};
use crate::error::errno::{ErrnoAction, action};
use crate::error::{Error, ErrorKind};
use crate::ring::Window;
use crate::source::{Access, Attempt, Downgrade, LocalFuture, Reader, Via};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;

/// Less than this is summed up where it is read.
const INLINE_BYTES: usize = 128 << 10;

/// What is read at a time by way of other memory.
const BOUNCE_BYTES: u64 = 1 << 20;

pub(super) struct CachedReader {
    source: Arc<CachedSource>,
    files: Arc<Files>,
    file: Option<Box<dyn Reader>>,
    remote: Box<dyn Reader>,
    access: Access,
    /// What was fetched and not shared yet.
    fetched: RefCell<Vec<Claim>>,
}

impl CachedReader {
    pub fn new(
        source: Arc<CachedSource>,
        files: Arc<Files>,
        remote: Box<dyn Reader>,
        access: &Access,
    ) -> Self {
        let file = source.file_reader(access);
        let (access, fetched) = (access.clone(), RefCell::default());
        Self { source, files, file, remote, access, fetched }
    }

    /// One attempt at the front of the window's unfilled part.
    async fn read(
        &self,
        entry: &Arc<Entry>,
        mut window: Window,
        offset: u64,
    ) -> (io::Result<Attempt>, Window) {
        let left = entry.len_bytes.saturating_sub(offset);
        let len = left.min(window.unfilled_len() as u64);
        let first = offset / PAGE_BYTES;
        let pages = entry.sealer.whole(offset, len);
        if !offset.is_multiple_of(PAGE_BYTES) || pages.is_empty() {
            return self.read_unaligned(entry, window, offset, len).await;
        }
        loop {
            match (entry.front(&self.files, &pages), &self.file) {
                (PageRun::Present(seals), Some(file)) => {
                    let outcome;
                    (outcome, window) = self.read_file(entry, &**file, seals, window, offset).await;
                    match outcome {
                        Ok(None) => {}
                        Ok(Some(attempt)) => return (Ok(attempt), window),
                        Err(error) => return (Err(error), window),
                    }
                }
                (front, _) => {
                    let count = match front {
                        PageRun::Present(seals) => seals.len() as u64,
                        PageRun::Missing(count) => count,
                    };
                    let missing = first..first + count;
                    match turn(entry, &self.files, &missing, &self.access.stop).await {
                        Ok(Turn::Arrived) => {}
                        Ok(Turn::Mine(claim)) => {
                            return self.fetch(entry, claim, count, window, offset).await;
                        }
                        Err(error) => return (Err(io::Error::other(error)), window),
                    }
                }
            }
        }
    }

    /// Reads what begins or ends in mid-page, as memory that a caller lends may: by way of the whole
    /// pages, where those are there.
    async fn read_unaligned(
        &self,
        entry: &Entry,
        mut window: Window,
        offset: u64,
        len: u64,
    ) -> (io::Result<Attempt>, Window) {
        let end = offset + len.min(BOUNCE_BYTES);
        let pages = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let Some(pages) = entry.read(&pages).filter(|_| len > 0) else {
            window.narrow((end - offset) as usize);
            let (outcome, mut window) = self.remote.read_at(window, offset).await;
            window.widen();
            return (outcome, window);
        };
        let (start, bytes) = ((offset % PAGE_BYTES) as usize, (end - offset) as usize);
        window.unfilled_mut()[..bytes].copy_from_slice(&pages[start..start + bytes]);
        self.access.counters.cached(bytes as u64);
        (Ok(Attempt { bytes, via: Via::Buffered }), window)
    }

    /// Reads pages that are there; `None` where the first of them turned out not to be.
    async fn read_file(
        &self,
        entry: &Entry,
        file: &dyn Reader,
        mut seals: Vec<u64>,
        mut window: Window,
        offset: u64,
    ) -> (io::Result<Option<Attempt>>, Window) {
        let first = offset / PAGE_BYTES;
        let wanted = seals.len() as u64;
        window.narrow((wanted * PAGE_BYTES) as usize);
        let reading = self.source.cache.checks.reading();
        let (outcome, mut window) = file.read_at(window, offset).await;
        drop(reading);
        let attempt = match outcome {
            Ok(attempt) => attempt,
            Err(error) => {
                window.widen();
                // The ladder of files; all else is the cache's misfortune, not the load's.
                if matches!(action(&error), ErrnoAction::Retry | ErrnoAction::Downgrade) {
                    return (Err(error), window);
                }
                tracing::debug!(%error, entry = %entry.directory.display(), "cannot be read");
                entry.distrust(first..first + wanted);
                return (Ok(None), window);
            }
        };
        let whole = entry.sealer.whole(offset, attempt.bytes as u64);
        let bytes = (entry.sealer.end_of(&whole).max(offset) - offset) as usize;
        seals.truncate((whole.end - whole.start) as usize);
        let wrong;
        (wrong, window) = self.wrong_pages(entry.sealer, first, window, bytes, seals).await;
        window.widen();
        let right = match wrong.first() {
            None if whole.is_empty() => {
                // Not even one page came of what should be there.
                entry.distrust(first..first + wanted);
                return (Ok(None), window);
            }
            None => whole.end,
            Some(&page) => page,
        };
        entry.distrust(wrong);
        if right == first {
            return (Ok(None), window);
        }
        let bytes = (entry.sealer.end_of(&(first..right)) - offset) as usize;
        self.access.counters.cached(bytes as u64);
        window.record_path("cache");
        (Ok(Some(Attempt { bytes, ..attempt })), window)
    }

    /// Those of the pages in the next `bytes` bytes of the window, of which the first is `first`, that are
    /// not as `seals` say.
    ///
    /// On another thread: an engine hands its next reads to the kernel when it has nothing else to do, so
    /// while it summed up, its disk would run dry.
    async fn wrong_pages(
        &self,
        sealer: Sealer,
        first: u64,
        mut window: Window,
        bytes: usize,
        seals: Vec<u64>,
    ) -> (Vec<u64>, Window) {
        let check = move || {
            let wrong = sealer.wrong(first, &window.unfilled_mut()[..bytes], &seals);
            (wrong, window)
        };
        if bytes < INLINE_BYTES {
            return check();
        }
        let _turn = self.source.cache.checks.turn().await;
        match tokio::task::spawn_blocking(check).await {
            Ok(checked) => checked,
            // It does not panic, and the runtime outlives its lanes.
            Err(lost) => std::panic::resume_unwind(lost.into_panic()),
        }
    }

    /// Fetches `count` pages.
    async fn fetch(
        &self,
        entry: &Entry,
        claim: Option<Claim>,
        count: u64,
        mut window: Window,
        offset: u64,
    ) -> (io::Result<Attempt>, Window) {
        window.narrow((count * PAGE_BYTES) as usize);
        let (outcome, mut window) = self.remote.read_at(window, offset).await;
        window.widen();
        match outcome {
            Ok(attempt) => {
                self.fetched.borrow_mut().extend(claim);
                (Ok(attempt), window)
            }
            Err(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                if inner.is_some_and(|error| error.kind() == ErrorKind::Changed) {
                    entry.expire();
                }
                (Err(error), window)
            }
        }
    }

    /// Hands what was fetched of `window` to the writer.
    fn share(&self, entry: &Arc<Entry>, window: &mut Window, offset: u64) {
        let whole = entry.sealer.whole(offset, window.filled() as u64);
        let mut fetched = self.fetched.borrow_mut();
        let of_window =
            |claim: &mut Claim| whole.start <= claim.pages.start && claim.pages.start < whole.end;
        let claims: Vec<_> = fetched.extract_if(.., of_window).collect();
        drop(fetched);
        if claims.is_empty() {
            return;
        }
        if self.source.cache.shelf.gave_up() {
            self.access.counters.note(self.source.cache.shelf.trouble());
            return; // nothing is written any more, so nothing has to be summed up
        }
        let all = window.share();
        for claim in claims {
            let pages = claim.pages.start..claim.pages.end.min(whole.end);
            let (start, end) = (pages.start * PAGE_BYTES, entry.sealer.end_of(&pages));
            let Some(held) = self.source.cache.writer.hold(&self.access.counters, end - start)
            else {
                continue;
            };
            let range = (start - offset) as usize..(end - offset) as usize;
            let checksums_of = |bytes: &[u8]| entry.sealer.seals(pages.start, bytes);
            let (seals, bytes) = match all.as_ref().map(|all| all.slice(range.clone())) {
                Some(part) => (checksums_of(window.shared_bytes(&part)), Bytes::Slot(part)),
                None => {
                    // Memory of a caller is the caller's again in a moment.
                    let bytes = window.filled_bytes()[range].to_vec();
                    (checksums_of(&bytes), Bytes::Own(bytes))
                }
            };
            self.source.cache.writer.push(Job {
                entry: Arc::clone(entry),
                files: Arc::clone(&self.files),
                first_page: pages.start,
                seals,
                bytes,
                claim: Some(claim),
                held: Some(held),
            });
        }
        self.access.counters.note(self.source.cache.shelf.trouble());
    }
}

impl Reader for CachedReader {
    fn read_at<'a>(
        &'a self,
        window: Window,
        offset: u64,
    ) -> LocalFuture<'a, (io::Result<Attempt>, Window)> {
        Box::pin(async move {
            match &self.source.entry {
                Some(entry) => self.read(entry, window, offset).await,
                None => self.remote.read_at(window, offset).await,
            }
        })
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
        if let Some(entry) = &self.source.entry {
            self.share(entry, window, offset);
        }
    }
}
