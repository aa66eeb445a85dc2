//! What the readers of a load count: how often something had to be asked for again, what came out of
//! the local file cache, and how much of the load's memory the cache's writer holds.

use crate::timeline::Recorder;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the readers of a load count.
#[derive(Debug)]
pub struct LoadCounters {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Bytes that came out of the cache.
    cached_bytes: AtomicU64,
    /// Bytes of the load's memory that wait to be written to the cache, and how many may.
    held_bytes: AtomicU64,
    held_bytes_max: AtomicU64,
    /// Bytes that were not written to the cache, as they came too fast for its disk.
    left_out_bytes: AtomicU64,
    /// Why the cache does less than it should.
    trouble: Mutex<Option<String>>,
    recorder: Option<Arc<Recorder>>,
}

impl Default for LoadCounters {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            cached_bytes: AtomicU64::new(0),
            held_bytes: AtomicU64::new(0),
            held_bytes_max: AtomicU64::new(u64::MAX),
            left_out_bytes: AtomicU64::new(0),
            trouble: Mutex::default(),
            recorder: None,
        }
    }
}

impl LoadCounters {
    /// One that tells the recorder, if any, of what is asked for again.
    pub(crate) fn recorded(recorder: Option<Arc<Recorder>>) -> Self {
        Self { recorder, ..Self::default() }
    }

    /// Counts one more, for the reason `word`.
    pub(crate) fn retry(&self, word: &'static str) {
        crate::metrics::retry(word);
        if let Some(recorder) = &self.recorder {
            recorder.retry(word);
        }
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += 1;
    }

    /// Counts `bytes` that came out of the cache.
    pub(crate) fn cached(&self, bytes: u64) {
        self.cached_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many came out of it so far.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached_bytes.load(Ordering::Relaxed)
    }

    /// Lets at most so many bytes be held.
    pub(crate) fn hold_at_most(&self, bytes: u64) {
        self.held_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Whether the load uses memory again that is held.
    pub(crate) fn reuses_memory(&self) -> bool {
        self.held_bytes_max.load(Ordering::Relaxed) < u64::MAX
    }

    /// Whether `bytes` more may be held; if so, they count as held.
    pub(crate) fn hold(&self, bytes: u64) -> bool {
        let held = self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Whatever its size, one thing may be held.
        let fits = held == 0 || held + bytes <= self.held_bytes_max.load(Ordering::Relaxed);
        if !fits {
            self.release(bytes);
        }
        fits
    }

    /// Says that `bytes` are not held any more.
    pub(crate) fn release(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether any are.
    pub(crate) fn holds_any(&self) -> bool {
        self.held_bytes.load(Ordering::Relaxed) > 0
    }

    /// Counts `bytes` that the cache left out.
    pub(crate) fn left_out(&self, bytes: u64) {
        self.left_out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many it left out so far.
    pub(crate) fn left_out_bytes(&self) -> u64 {
        self.left_out_bytes.load(Ordering::Relaxed)
    }

    /// Notes why the cache does less than it should.
    pub(crate) fn note(&self, trouble: Option<String>) {
        if let Some(trouble) = trouble {
            let mut noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            noted.get_or_insert(trouble);
        }
    }

    /// Why it does, if it does.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
