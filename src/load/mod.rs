//! Loads the tensors of a checkpoint.
//!
//! ```text
//! Loader::stream:      locations -> Checkpoint -> Plan -> rings + engines -> TensorStream -> Tensor ...
//! Loader::load:        a stream, collected
//! Loader::by_name:     a load whose tensors are asked for by name
//! Loader::sum:         a load of pieces of files, of which only checksums are kept
//! Loader::read_tensor: one tensor of an open checkpoint, or a part of it
//! MappedCheckpoint:    tensors that are views of private mappings of local files
//! Loader::read_into:   byte ranges of locations -> engines -> the caller's own memory
//! ..._async:           the same, on a thread of its own
//! ```

mod async_stream;
mod asynchronous;
mod caching;
#[cfg(feature = "http")]
mod download;
mod early;
mod expected_order;
mod gds;
mod held;
mod kept_tensors;
mod listing;
mod loaded;
mod loader;
mod mapped;
mod memory_check;
mod named;
mod named_state;
mod numa_affinity;
mod option_table;
mod part;
mod pinned_pool;
mod planned;
mod read_ahead;
mod read_into;
mod read_request;
mod remote;
mod report;
mod rings;
mod setters;
mod start;
mod stream;
mod sum;
mod summary;
#[cfg(feature = "http")]
mod verified_files;
mod verify;
mod verify_ranges;

pub use async_stream::AsyncTensorStream;
pub use asynchronous::{AsyncCall, OwnedReadRequest};
#[cfg(feature = "http")]
pub use download::{Download, Downloaded};
pub use held::{HeldCheckpoint, HeldFile};
pub use listing::Listed;
pub use loaded::Loaded;
pub use loader::{Loader, sharing_pinned_ring};
pub use mapped::{MappedCheckpoint, OpenFiles};
pub use named::NamedTensors;
pub use option_table::{LoaderOption, OptionGroup, OptionKind};
pub use pinned_pool::unpin_shared_ring;
pub use planned::{
    PlannedRuns, PlannedTensor, checkpoint_in_memory, checkpoint_of_ranges, described_checkpoint,
    planned_runs,
};
pub use read_request::ReadRequest;
pub use stream::TensorStream;
pub use summary::Summary;
#[cfg(feature = "http")]
pub use verified_files::{discard_corrupt, is_cached, stream_into_cache, unverified};

use crate::checkpoint::Checkpoint;
use crate::checks::LoadChecks;
use crate::error::Result;
use crate::location::IntoLocations;
use crate::options::{self, DeviceMap, MemoryLimit, Order};
use crate::plan::{Plan, Selection};
use crate::ring::Ring;
#[cfg(any(feature = "capi", test))]
use crate::source::Opener;
use crate::source::Purpose;
use crate::timeline::Recorder;
use report::LoadReport;
use std::sync::Arc;
use std::time::Instant;
use tracing::info_span;

impl Loader {
    /// Opens the checkpoint at `locations` with this loader's options for remote locations. Only its
    /// headers are read.
    ///
    /// # Errors
    /// The errors of [`Checkpoint::open`].
    pub fn open(&self, locations: impl IntoLocations) -> Result<Checkpoint> {
        self.open_for(Purpose::Header, locations)
    }

    fn open_for(&self, purpose: Purpose, locations: impl IntoLocations) -> Result<Checkpoint> {
        self.check_variables()?;
        let opener = self.opener.renewed().for_gpus(self.options.devices.has_only_gpus());
        let opener = opener.opening_for(purpose);
        let locations = locations.into_locations()?;
        let first = locations.first().map(tracing::field::display);
        let _entered = info_span!("open", location = first).entered();
        Checkpoint::open_with(&opener, &self.options.checkpoint, locations)
    }

    /// Opens sources with this loader's options.
    #[cfg(any(feature = "capi", test))]
    pub(crate) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Loads all tensors of the checkpoint at `locations` and keeps them resident.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind); among them
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit) when the tensors together, in whole blocks of
    /// the file system, exceed the memory limit.
    pub fn load(&self, locations: impl IntoLocations) -> Result<Loaded> {
        Loaded::collect(self.stream(locations)?)
    }

    /// As [`load`](Self::load), for an open checkpoint.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_checkpoint(&self, checkpoint: Arc<Checkpoint>) -> Result<Loaded> {
        Loaded::collect(self.stream_checkpoint(checkpoint)?)
    }

    /// Loads the tensors of the checkpoint at `locations` and yields each as soon as it is loaded.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind). Errors that occur while reading are items of the stream.
    pub fn stream(&self, locations: impl IntoLocations) -> Result<TensorStream> {
        let report = LoadReport::begin(self, info_span!("load"));
        let opened = report.span().in_scope(|| self.open_for(Purpose::Load, locations));
        let checkpoint = opened.map_err(|error| report.fail(error))?;
        self.start_stream(Arc::new(checkpoint), report)
    }

    /// As [`stream`](Self::stream), for an open checkpoint.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn stream_checkpoint(&self, checkpoint: Arc<Checkpoint>) -> Result<TensorStream> {
        self.start_stream(checkpoint, LoadReport::begin(self, info_span!("load")))
    }

    /// The positions in [`Checkpoint::tensors`] of the tensors that a load of `checkpoint` takes:
    /// [`names`](Self::names), [`tensors`](Self::tensors). For callers that request them by
    /// [`read_into`](Self::read_into).
    ///
    /// # Errors
    /// As [`stream`](Self::stream), for names and globs.
    pub fn selected(&self, checkpoint: &Checkpoint) -> Result<Vec<usize>> {
        let indices = self.options.selection.indices(checkpoint)?;
        Ok(indices.into_iter().map(|index| index as usize).collect())
    }

    /// Whether a load gives the bytes of whole tensors as they are, without checks:
    /// [`read_into`](Self::read_into) of the [selected](Self::selected) tensors then gives the same.
    pub fn is_plain(&self) -> bool {
        !self.checks_bytes() && self.options.selection.slices.is_empty()
    }

    /// Starts a load of `checkpoint`, whose report has begun.
    fn start_stream(
        &self,
        checkpoint: Arc<Checkpoint>,
        report: Arc<LoadReport>,
    ) -> Result<TensorStream> {
        let limit = self.resolved_memory_limit().map_err(|error| report.fail(error))?;
        let (selection, began) = (self.selection(&checkpoint), report.began);
        self.start_selected(checkpoint, limit, &selection, None, began, report)
    }

    /// Starts another load of a checkpoint, in a `ring` that another load has used, whose report it
    /// continues.
    fn stream_again(
        &self,
        checkpoint: Arc<Checkpoint>,
        limit: MemoryLimit,
        selection: &Selection,
        ring: &Arc<Ring>,
        report: Arc<LoadReport>,
    ) -> Result<TensorStream> {
        let began = Instant::now();
        self.start_selected(checkpoint, limit, selection, Some(ring), began, report)
    }

    fn start_selected(
        &self,
        checkpoint: Arc<Checkpoint>,
        limit: MemoryLimit,
        selection: &Selection,
        ring: Option<&Arc<Ring>>,
        began: Instant,
        report: Arc<LoadReport>,
    ) -> Result<TensorStream> {
        let entered = report.span().enter();
        let started = self.planned_load(checkpoint, limit, selection, began).and_then(|planned| {
            let (plan, checks, recorder) = planned;
            let started = self.start_load(&plan, checks, recorder, ring, &report)?;
            Ok((plan, started))
        });
        let (plan, started) = started.map_err(|error| report.fail(error))?;
        drop(entered);
        Ok(TensorStream::new(plan, started, &self.options.order, began, report))
    }

    /// Loads all tensors of `checkpoint` to host memory under `limit`, with `checks` and no others.
    fn stream_checked(
        &self,
        checkpoint: Arc<Checkpoint>,
        limit: MemoryLimit,
        checks: LoadChecks,
        report: Arc<LoadReport>,
    ) -> Result<TensorStream> {
        let (all, host) = (Selection::default(), DeviceMap::default());
        let plan = Arc::new(Plan::new(checkpoint, limit, &all, &host, None)?);
        let started = self.start_load(&plan, checks, None, None, &report)?;
        let began = report.began;
        Ok(TensorStream::new(plan, started, &Order::Completion, began, report))
    }

    /// Plans a load that began at `began`.
    fn planned_load(
        &self,
        checkpoint: Arc<Checkpoint>,
        limit: MemoryLimit,
        selection: &Selection,
        began: Instant,
    ) -> Result<(Arc<Plan>, LoadChecks, Option<Arc<Recorder>>)> {
        let _entered = info_span!("plan").entered();
        let options = &self.options;
        options.dtype.map_or(Ok(()), options::check_dtype)?;
        let plan = Plan::new(checkpoint, limit, selection, &options.devices, options.dtype)?;
        let plan = Arc::new(plan);
        let checks = self.checks(&plan)?;
        let recorder = options.timeline.then(|| Recorder::new(began));
        if let Some(recorder) = &recorder {
            recorder.step("open", None, began);
        }
        Ok((plan, checks, recorder))
    }
}

#[cfg(test)]
mod immutable_tests;
#[cfg(test)]
mod short_slices_tests;
#[cfg(test)]
mod slices_tests;
