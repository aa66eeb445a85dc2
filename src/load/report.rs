//! What a load reports of itself while it runs, and at its end: its progress, its spans, one line of the
//! log, and the metrics of its duration.
//!
//! ```text
//! begin       the span `load` (or `read_into`); `open` and `plan` lie in it
//! plan        the total of the progress; the span `read`, which the engines enter
//! deliver     a tensor was handed out
//! end         INFO `loaded`, or `not loaded` with the outcome; `ringload_load_seconds`
//! ```
//!
//! A load by names may have several plans, as it is restarted. They continue one report. A load that is
//! dropped before its caller has got everything is reported as cancelled.

use super::loader::Loader;
use crate::error::{Error, ErrorKind};
use crate::metrics::{self, LoadEnd};
use crate::plan::Plan;
use crate::source::{Arrivals, Progress, ProgressPart, Source};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tracing::Span;

/// The report of one load. It is complete when it is dropped.
pub(super) struct LoadReport {
    pub began: Instant,
    span: Span,
    progress: Progress,
    planned: OnceLock<PlannedLoad>,
    /// How many tensors or requests the caller has got.
    delivered: AtomicUsize,
    has_ended: AtomicBool,
}

/// What is known of a load when it was planned.
struct PlannedLoad {
    part: ProgressPart,
    /// How many tensors or requests it has.
    count: usize,
    /// The kinds of its sources.
    sources: String,
}

impl LoadReport {
    /// Begins the report of a load by `loader`, with its `span`.
    pub fn begin(loader: &Loader, span: Span) -> Arc<Self> {
        metrics::describe();
        Arc::new(Self {
            began: Instant::now(),
            span,
            progress: loader.opener.progress().cloned().unwrap_or_default(),
            planned: OnceLock::new(),
            delivered: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
        })
    }

    /// The span of the whole load.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The span of the reads, in that of the load.
    pub fn span_of_reads(&self) -> Span {
        tracing::info_span!(parent: &self.span, "read")
    }

    /// The handle that shows the progress.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Records the plan of the load, or of its continuation. Returns what counts the bytes that are read.
    pub fn plan(&self, plan: &Plan, sources: &[Arc<dyn Source>]) -> Arrivals {
        let read_bytes = plan.extents().iter().map(|extent| extent.len_bytes()).sum();
        self.expect(plan.delivered_bytes(), plan.tensor_count(), read_bytes, sources)
    }

    /// Records that the caller is to get `count` tensors or requests of `bytes` together, for which
    /// `read_bytes` are read. Returns what counts the bytes that are read.
    pub fn expect(
        &self,
        bytes: u64,
        count: usize,
        read_bytes: u64,
        sources: &[Arc<dyn Source>],
    ) -> Arrivals {
        let planned = self.planned.get_or_init(|| {
            let kinds: BTreeSet<_> = sources.iter().map(|source| source.kind()).collect();
            let sources = kinds.into_iter().collect::<Vec<_>>().join("+");
            PlannedLoad { part: self.progress.part(bytes), count, sources }
        });
        planned.part.arrivals(read_bytes, bytes)
    }

    /// Counts `count` tensors or requests that the caller has got, of `bytes` together.
    pub fn deliver(&self, count: usize, bytes: u64) {
        self.delivered.fetch_add(count, Ordering::Relaxed);
        self.planned.get().into_iter().for_each(|planned| planned.part.deliver(bytes));
    }

    /// Reports the end of the load, unless it was reported before.
    pub fn succeed(&self) {
        self.end(Ok(()));
    }

    /// As [`succeed`](Self::succeed), with the error that ended the load, which is returned.
    pub fn fail(&self, error: Error) -> Error {
        self.end(Err(&error));
        error
    }

    fn end(&self, outcome: Result<(), &Error>) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let planned = self.planned.get();
        let bytes = planned.map_or(0, |planned| planned.part.delivered_bytes());
        let source = planned.map_or("", |planned| &planned.sources);
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { bytes as f64 / seconds / 1e9 } else { 0.0 };
        let tensors = self.delivered.load(Ordering::Relaxed);
        let kind = outcome.err().map(Error::kind);
        let outcome = kind.map_or("ok", ErrorKind::as_str);
        metrics::load_ended(&LoadEnd { source, outcome, bytes, seconds });
        let _entered = self.span.enter();
        let message = if kind.is_none() { "loaded" } else { "not loaded" };
        tracing::info!(
            bytes,
            tensors,
            seconds = format_args!("{seconds:.3}"),
            gigabytes_per_second = format_args!("{rate:.2}"),
            source,
            outcome,
            "{message}"
        );
    }
}

impl Drop for LoadReport {
    fn drop(&mut self) {
        let delivered = *self.delivered.get_mut();
        match self.planned.get() {
            Some(planned) if delivered == planned.count => self.succeed(),
            _ => drop(self.fail(crate::source::stopped())),
        }
    }
}
