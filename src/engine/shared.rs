//! The state that the threads of a load and its caller share.

use super::job::Job;
use super::load_stats::LoadStats;
use super::queue::{Completion, CompletionQueue};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Extent;
use crate::source::{Cancellable, ChecksumVerifier, Source, Stop, Via, stopped};
use crate::tensor::LoadedTensors;
use crate::timeline::{SlotUse, Stage, TraceSpan};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The state that the threads of a load and its caller share.
pub(crate) struct Shared {
    pub job: Job,
    pub queue: CompletionQueue,
    pub stats: LoadStats,
    /// Reads that read tasks have taken and whose completion they have not delivered yet.
    pub in_flight: AtomicUsize,
    pub stop: Arc<Stop>,
    /// The verifier of each of the job's sources, where the load verifies the source.
    pub checks: Vec<Option<Arc<ChecksumVerifier>>>,
    engines_left: AtomicUsize,
    /// Engines and device transfers.
    workers_left: AtomicUsize,
}

impl Shared {
    pub fn new(mut job: Job) -> Self {
        let arrivals = job.arrivals.take();
        let engines = job.engines.max(1);
        let is_checked =
            |check: &Arc<ChecksumVerifier>| job.verify || job.is_whole && check.is_needed();
        let check = |source: &Arc<dyn Source>| source.verifier().filter(is_checked);
        Self {
            checks: job.sources.iter().map(check).collect(),
            queue: CompletionQueue::default(),
            stats: LoadStats::new(job.recorder.clone(), arrivals),
            in_flight: AtomicUsize::new(0),
            stop: Arc::default(),
            engines_left: AtomicUsize::new(engines),
            workers_left: AtomicUsize::new(engines + job.transfers.len()),
            job,
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.stop.is_set()
    }

    /// Cancels the load: read tasks end at their next check of the flag, and those that wait are
    /// woken.
    pub fn cancel(&self) {
        self.stop.set();
        self.job.rings.iter().for_each(|ring| ring.close());
        self.job.transfers.iter().for_each(|transfer| transfer.close());
    }

    /// Ends the load with `error`. Only the first error is reported.
    pub fn fail(&self, error: Error) {
        if error.kind() != ErrorKind::Cancelled {
            tracing::debug!(%error, "load failed");
            self.queue.fail(error);
        }
        self.cancel();
    }

    /// Runs a thread's `body`. A panic in it ends the load with an error instead of a hang.
    pub fn guard(&self, body: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            self.fail(Error::new(ErrorKind::Io, "a thread of the load panicked; this is a bug"));
        }
    }

    /// Loads the remaining `extents`, of which `next` is the index of the first, until none is left
    /// or the load is stopped. All threads advance `next`. Delivers the tensors of each extent.
    pub fn load_extents<T: IntoIterator<Item = LoadedTensors>>(
        &self,
        extents: &[Extent],
        next: &AtomicUsize,
        mut load: impl FnMut(&Extent) -> Result<T>,
    ) {
        while !self.is_cancelled() {
            let Some(extent) = extents.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match load(extent) {
                Ok(ready) => {
                    ready.into_iter().for_each(|ready| self.queue.push(Completion::Tensors(ready)));
                }
                Err(error) => self.fail(error),
            }
        }
    }

    /// Counts an engine as ended. After the last one the device transfers get no further slots.
    pub fn engine_ended(&self) {
        if self.engines_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.job.transfers.iter().for_each(|transfer| transfer.close());
        }
        self.worker_ended();
    }

    /// Counts an engine or a device transfer as ended. After the last one the caller gets no further
    /// completions.
    pub fn worker_ended(&self) {
        if self.workers_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.close();
        }
    }

    /// A trace span for an extent that is read without a slot. `None` without a timeline.
    pub fn trace_span(&self, engine: usize, extent: &Extent, via: Via) -> Option<TraceSpan> {
        let span = self.job.recorder.as_ref()?.slot(SlotUse {
            engine,
            shard: extent.shard(),
            offset_bytes: extent.offset_bytes(),
            bytes: extent.len_bytes(),
            stage: Stage::Reading,
        });
        span.record_path(via.as_str());
        Some(span)
    }
}

impl Cancellable for Shared {
    /// Ends the wait of the caller at once, who gets no further tensors.
    fn cancelled(&self) {
        self.queue.fail(stopped());
        self.cancel();
    }
}
