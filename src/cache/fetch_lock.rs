//! Decides which load fetches a page, so that concurrent loads in one or many processes fetch each
//! page about once.
//!
//! The holder of a fetch lock keeps it until the pages are written or given up, and never waits for
//! another holder while it does. So there is no deadlock.

use super::entry::{Entry, PageRun};
use super::files::EntryFiles;
use crate::error::Result;
use crate::source::{Stop, stopped};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a load waits for another holder that does not make any progress.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// A load fetches fewer pages than this itself, as waiting for them costs as much.
const WAIT_PAGES_MIN: u64 = 4;

/// The exclusive right to fetch and write a range of pages. Dropping it releases the pages.
#[derive(Debug)]
pub(super) struct FetchLock {
    entry: Arc<Entry>,
    pub pages: Range<u64>,
}

/// What to do about missing pages.
#[derive(Debug)]
pub(super) enum FetchDecision {
    /// Fetch them, and write those that are locked.
    Fetch(Option<FetchLock>),
    /// Read again: some of the pages have been written meanwhile.
    Arrived,
}

impl FetchLock {
    /// Locks `pages`, or all of them but the first or the last. Where two extents share a page,
    /// both fetch it, and the first one to lock it writes it.
    fn try_lock(entry: &Arc<Entry>, pages: &Range<u64>) -> Option<Self> {
        let Range { start, end } = *pages;
        [start..end, start + 1..end, start..end - 1, start + 1..end.saturating_sub(1)]
            .into_iter()
            .find(|pages| pages.start < pages.end && Self::try_lock_exactly(entry, pages))
            .map(|pages| Self { entry: Arc::clone(entry), pages })
    }

    fn try_lock_exactly(entry: &Entry, pages: &Range<u64>) -> bool {
        let mut fetching = entry.fetching.lock();
        let before = fetching.range(..pages.end).next_back();
        if before.is_some_and(|(_, &end)| end > pages.start)
            || !entry.in_use.cache.try_lock_pages(entry.in_use.range, pages)
        {
            return false;
        }
        fetching.insert(pages.start, pages.end);
        true
    }
}

impl Drop for FetchLock {
    fn drop(&mut self) {
        let mut fetching = self.entry.fetching.lock();
        fetching.remove(&self.pages.start);
        self.entry.in_use.cache.unlock_pages(self.entry.in_use.range, &self.pages);
    }
}

/// Decides whether this load fetches `pages`, a run of missing pages as
/// [`first_run`](Entry::first_run) gives it. Waits while another load fetches any of them.
///
/// # Errors
/// [`Cancelled`](crate::ErrorKind::Cancelled) when the load is stopped.
pub(super) async fn decide(
    entry: &Arc<Entry>,
    files: &EntryFiles,
    pages: &Range<u64>,
    stop: &Stop,
) -> Result<FetchDecision> {
    let mut began = Instant::now();
    let mut modified = files.modified();
    let mut pause = PAUSE;
    loop {
        if entry.in_use.cache.stopped_writing() {
            return Ok(FetchDecision::Fetch(None));
        }
        if let Some(lock) = FetchLock::try_lock(entry, pages) {
            // Former holders may have written any of the pages since this load looked for them.
            let all = PageRun::Missing(pages.end - pages.start);
            return Ok(match entry.first_run(files, pages) == all {
                true => FetchDecision::Fetch(Some(lock)),
                false => FetchDecision::Arrived,
            });
        }
        let is_short = pages.end - pages.start < WAIT_PAGES_MIN;
        if is_short || entry.skips_waiting.load(Ordering::Relaxed) {
            return Ok(FetchDecision::Fetch(None));
        }
        if entry.has_page(files, pages.start) {
            return Ok(FetchDecision::Arrived);
        }
        if modified != files.modified() {
            (began, modified) = (Instant::now(), files.modified());
        }
        if began.elapsed() > STALL_TIMEOUT {
            tracing::debug!(
                entry = %entry.path().display(),
                "another process that fetches the object has stalled; this load fetches it as well"
            );
            entry.skips_waiting.store(true, Ordering::Relaxed);
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.stopped() => return Err(stopped()),
        }
        pause = (2 * pause).min(PAUSE_MAX);
    }
}
