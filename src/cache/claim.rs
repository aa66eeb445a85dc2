//! Who fetches what: so that many loads, of one process or of many, fetch each page about once.
//!
//! Whoever holds a claim goes on until the pages are written or given up, and waits for nobody else's
//! claim meanwhile: so nobody waits in a circle.

use super::entry::{Entry, lock};
use super::files::Files;
use crate::error::Result;
use crate::source::{Stop, stopped};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long somebody else's fetching is waited for without a page of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// Fewer pages than this are not waited for: fetching them costs no more.
const WORTH_WAITING_PAGES: u64 = 4;

/// The right to fetch and write these pages; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    entry: Arc<Entry>,
    pub pages: Range<u64>,
}

/// How it is with pages that are missing.
#[derive(Debug)]
pub(super) enum Turn {
    /// They are to be fetched, and of them these are to be kept.
    Mine(Option<Claim>),
    /// The first one has come meanwhile.
    Arrived,
}

impl Claim {
    /// Claims `pages`, or all but the first or last of them: at the ends of extents a page is fetched
    /// by both sides, and belongs to the first to claim it.
    fn take(entry: &Arc<Entry>, pages: &Range<u64>) -> Option<Self> {
        let Range { start, end } = *pages;
        [start..end, start + 1..end, start..end - 1, start + 1..end.saturating_sub(1)]
            .into_iter()
            .find(|pages| pages.start < pages.end && Self::take_exactly(entry, pages))
            .map(|pages| Self { entry: Arc::clone(entry), pages })
    }

    fn take_exactly(entry: &Entry, pages: &Range<u64>) -> bool {
        let mut claimed = lock(&entry.claimed);
        let before = claimed.range(..pages.end).next_back();
        if before.is_some_and(|(_, &end)| end > pages.start)
            || !entry.shelf.claim(entry.stretch, pages)
        {
            return false;
        }
        claimed.insert(pages.start, pages.end);
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = lock(&self.entry.claimed);
        claimed.remove(&self.pages.start);
        self.entry.shelf.release(self.entry.stretch, &self.pages);
    }
}

/// Waits until `pages`, of which the first one is missing, are to be fetched, or have come.
///
/// # Errors
/// [`Cancelled`](crate::ErrorKind::Cancelled) when the load is stopped.
pub(super) async fn turn(
    entry: &Arc<Entry>,
    files: &Files,
    pages: &Range<u64>,
    stop: &Stop,
) -> Result<Turn> {
    let mut began = Instant::now();
    let mut changed = files.changed();
    let mut pause = PAUSE;
    loop {
        if entry.shelf.gave_up() {
            return Ok(Turn::Mine(None));
        }
        if let Some(claim) = Claim::take(entry, pages) {
            // Its last holder may have written it after it was looked for.
            return Ok(match entry.has(files, pages.start) {
                true => Turn::Arrived,
                false => Turn::Mine(Some(claim)),
            });
        }
        if pages.end - pages.start < WORTH_WAITING_PAGES || entry.impatient.load(Ordering::Relaxed)
        {
            return Ok(Turn::Mine(None));
        }
        if entry.has(files, pages.start) {
            return Ok(Turn::Arrived);
        }
        if changed != files.changed() {
            (began, changed) = (Instant::now(), files.changed());
        }
        if began.elapsed() > PATIENCE {
            tracing::debug!(entry = %entry.directory.display(), "another process fetches the object \
                and gets no further; it is fetched without waiting");
            entry.impatient.store(true, Ordering::Relaxed);
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.stopped() => return Err(stopped()),
        }
        pause = (2 * pause).min(PAUSE_MAX);
    }
}
