//! The counters of a load's readers: retries, bytes read from the local file cache, and bytes of
//! the load's memory that wait to be written to the cache.

use super::file::ColdReads;
use super::progress::{Arrivals, Arriving};
use crate::sync::Mutex;
use crate::timeline::Recorder;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The counters of a load's readers.
#[derive(Debug, Default)]
pub struct LoadCounters {
    /// Retries by reason.
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Bytes read from the cache.
    cached_bytes: AtomicU64,
    /// Bytes of the load's memory that wait to be written to the cache, and their limit.
    held_bytes: AtomicU64,
    held_bytes_max: OnceLock<u64>,
    /// Bytes that were not written to the cache because its disk was too slow.
    left_out_bytes: AtomicU64,
    /// The first problem of the cache.
    warning: Mutex<Option<String>>,
    /// How many ranges the load's server can have on the way; 0 before it said so.
    connections: AtomicUsize,
    /// Notified, too, when the number of cold reads changes.
    connections_changed: Notify,
    cold_reads: ColdReads,
    recorder: Option<Arc<Recorder>>,
    /// Counts the load's bytes as they arrive.
    arrivals: Option<Arrivals>,
}

impl LoadCounters {
    /// Counters that also report retries to `recorder`, and bytes to `arrivals`.
    pub(crate) fn new(recorder: Option<Arc<Recorder>>, arrivals: Option<Arrivals>) -> Self {
        Self { recorder, arrivals, ..Self::default() }
    }

    /// Counts the bytes of a read that has ended.
    pub(crate) fn arrived(&self, bytes: u64) {
        self.arrivals.iter().for_each(|arrivals| arrivals.settle(bytes));
    }

    /// Counts the bytes of a read while it lasts.
    pub(crate) fn arriving(&self) -> Arriving<'_> {
        Arriving::new(self.arrivals.as_ref())
    }

    /// Counts a retry.
    pub(crate) fn retry(&self, reason: &'static str) {
        crate::metrics::retry(reason);
        if let Some(recorder) = &self.recorder {
            recorder.retry(reason);
        }
        *self.counts.lock().entry(reason).or_default() += 1;
    }

    /// Records how many ranges the load should have on the way from now on.
    pub(crate) fn set_connections(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
        self.connections_changed.notify_waiters();
    }

    /// How many ranges the load should have on the way; `None` until the number has changed.
    pub(crate) fn connections(&self) -> Option<usize> {
        Some(self.connections.load(Ordering::Relaxed)).filter(|&connections| connections > 0)
    }

    /// The reads of files that are not in the page cache and refuse direct I/O.
    pub(crate) fn cold_reads(&self) -> &ColdReads {
        &self.cold_reads
    }

    /// Wakes the engines after the number of cold reads has changed.
    pub(crate) fn cold_reads_changed(&self) {
        self.connections_changed.notify_waiters();
    }

    /// Resolves when the number of [`connections`](Self::connections) or of cold reads changes.
    pub(crate) fn connections_changed(&self) -> Notified<'_> {
        self.connections_changed.notified()
    }

    /// Counts `bytes` read from the cache.
    pub(crate) fn cached(&self, bytes: u64) {
        self.cached_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The number of bytes read from the cache.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached_bytes.load(Ordering::Relaxed)
    }

    /// Limits the bytes that the cache writer may hold, because the load reuses its memory.
    pub(crate) fn hold_at_most(&self, bytes: u64) {
        // Set once per load.
        let _ = self.held_bytes_max.set(bytes);
    }

    /// Whether the load reuses its memory, so that the bytes held are limited.
    pub(crate) fn reuses_memory(&self) -> bool {
        self.held_bytes_max.get().is_some()
    }

    /// Reserves `bytes` of the cache writer's share of the load's memory. Returns false when the share
    /// is used up.
    pub(crate) fn hold(&self, bytes: u64) -> bool {
        let held = self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single range may always be held, even if it exceeds the share.
        let fits = held == 0 || self.held_bytes_max.get().is_none_or(|&max| held + bytes <= max);
        if !fits {
            self.release(bytes);
        }
        fits
    }

    /// Returns `bytes` to the share.
    pub(crate) fn release(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the cache writer holds any bytes.
    pub(crate) fn holds_any(&self) -> bool {
        self.held_bytes.load(Ordering::Relaxed) > 0
    }

    /// Counts `bytes` that were not written to the cache.
    pub(crate) fn left_out(&self, bytes: u64) {
        self.left_out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The number of bytes that were not written to the cache.
    pub(crate) fn left_out_bytes(&self) -> u64 {
        self.left_out_bytes.load(Ordering::Relaxed)
    }

    /// Records a problem of the cache, unless one was recorded before.
    pub(crate) fn note(&self, warning: Option<String>) {
        if let Some(warning) = warning {
            self.warning.lock().get_or_insert(warning);
        }
    }

    /// The first problem of the cache.
    pub(crate) fn warning(&self) -> Option<String> {
        self.warning.lock().clone()
    }

    /// The retries so far, by reason.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().clone()
    }
}
