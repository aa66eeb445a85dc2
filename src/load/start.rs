//! Starts loads: chooses the read path, makes the engines' job and starts it.

use super::gds::GdsChoice;
use super::loader::Loader;
use super::pinned_pool::PinnedGuard;
use super::rings::{DestinationSpec, Rings, layout_of};
use super::stream::TensorStream;
use crate::checkpoint::Checkpoint;
use crate::device::cuda::GdsGpu;
use crate::engine::{EngineWork, GdsWork, Job, LoadHandle, MappedWork, RingWork};
use crate::error::{Error, ErrorKind, Result};
use crate::options::{self, Device, ReadPath};
use crate::plan::{Plan, ReadSizes};
use crate::source::{Downgrade, Source};
use crate::timeline::Recorder;
use std::sync::Arc;
use std::time::Instant;

/// How the bytes of a load are read.
enum LoadPath {
    /// The files are mapped.
    Mapped,
    /// The GPUs read the files.
    Gds(Vec<GdsGpu>),
    /// Engines read into rings. The downgrade is reported if the caller requested another path.
    Ring(Option<Downgrade>),
}

/// A load that was started.
pub(super) struct StartedLoad {
    /// Dropped first, which waits until no thread uses the rings any more.
    pub handle: LoadHandle,
    pub ring_bytes: u64,
    /// Returns the pinned ring to the loader.
    pub _pinned: Option<PinnedGuard>,
}

impl Loader {
    /// Starts a load of `checkpoint` that began at `began`.
    pub(super) fn start_stream(
        &self,
        checkpoint: Arc<Checkpoint>,
        began: Instant,
    ) -> Result<TensorStream> {
        let options = &self.options;
        let limit = self.resolved_memory_limit()?;
        options.dtype.map_or(Ok(()), options::check_dtype)?;
        let (selection, devices) = (&options.selection, &options.devices);
        let plan = Arc::new(Plan::new(checkpoint, limit, selection, devices, options.dtype)?);
        self.check_verifiable(&plan)?;
        let recorder = options.timeline.then(|| Recorder::new(began));
        if let Some(recorder) = &recorder {
            recorder.step("open", None, began);
        }
        let started = self.start_load(&plan, recorder)?;
        Ok(TensorStream::new(plan, started, options.order, began))
    }

    fn start_load(&self, plan: &Arc<Plan>, recorder: Option<Arc<Recorder>>) -> Result<StartedLoad> {
        let shards = plan.checkpoint().shards();
        let sources: Vec<_> = shards.iter().map(|shard| Arc::clone(shard.source())).collect();
        let path = self.load_path(plan, &sources)?;
        let (sizes, options) = (plan.sizes(), self.read_options()?);
        let reads = ReadSizes::new(options, sizes.ring_bytes(), plan.total_bytes(), &sources);
        let mut job = self.job(sources.clone(), reads, plan.devices());
        job.recorder = recorder.clone();
        let extents = Arc::clone(plan.extents_shared());
        let (mut ring_bytes, mut pinned, mut downgraded) = (0, None, None);
        let work = match path {
            LoadPath::Mapped => EngineWork::Mapped(MappedWork::new(Arc::clone(plan))),
            LoadPath::Gds(gpus) => {
                let (threads, bounce_bytes) = sizes.gds_threads(options, extents.len());
                job.engines = threads;
                EngineWork::Gds(GdsWork::new(extents, sources, gpus, bounce_bytes))
            }
            LoadPath::Ring(downgrade) => {
                let rings = Rings::new(self, plan.devices(), sizes, job.affinity.as_deref())?;
                let destinations = rings.destinations(&DestinationSpec {
                    devices: plan.devices(),
                    extents: &extents,
                    sources: &sources,
                    layout: &|index| layout_of(plan, index, self.options.allocation),
                    verify: self.verifies(),
                })?;
                job.use_rings(rings.all(), &destinations);
                // The ring that all bytes for GPUs pass through gains most from being registered.
                job.register = job.rings.last().filter(|_| reads.register).cloned();
                (ring_bytes, pinned, downgraded) = (sizes.ring_bytes(), rings.gpus, downgrade);
                let chunk_bytes = reads.chunk_bytes;
                let work = RingWork::new(extents, sources, destinations, chunk_bytes, recorder);
                EngineWork::Reads(Arc::new(work))
            }
        };
        let uses_rings = matches!(work, EngineWork::Reads(_));
        let handle = LoadHandle::start(job, work)?;
        if let Some(bytes) = sizes.cache_held_bytes().filter(|_| uses_rings) {
            handle.stats().counters.hold_at_most(bytes);
        }
        downgraded.into_iter().for_each(|downgrade| handle.stats().downgrade(downgrade));
        Ok(StartedLoad { handle, ring_bytes, _pinned: pinned })
    }

    /// How the load of `plan` reads.
    ///
    /// # Errors
    /// When the mapped read path is set and cannot do the load; when a GPU is missing or has too
    /// little memory.
    fn load_path(&self, plan: &Plan, sources: &[Arc<dyn Source>]) -> Result<LoadPath> {
        if self.options.read_path == ReadPath::Mapped {
            check_mappable(plan)?;
            return Ok(LoadPath::Mapped);
        }
        Ok(match self.choose_gds(plan, sources)? {
            GdsChoice::Use(gpus) => LoadPath::Gds(gpus),
            GdsChoice::Not(downgrade) => LoadPath::Ring(downgrade),
        })
    }

    /// The job of engines that read `sources`, without rings.
    pub(super) fn job(
        &self,
        sources: Vec<Arc<dyn Source>>,
        reads: ReadSizes,
        devices: &[Device],
    ) -> Job {
        Job {
            sources,
            rings: Vec::new(),
            transfers: Vec::new(),
            affinity: self.affinity(devices),
            read_path: match self.options.read_path {
                ReadPath::Gds => ReadPath::Auto, // engines read what GPUs cannot
                path => path,
            },
            engines: reads.engines,
            depth: reads.depth,
            register: None,
            ahead_bytes: reads.ahead_bytes,
            hold_timeout: self.options.hold_timeout,
            caller_may_retain_all: self.options.caller_may_retain_all,
            verify: self.verifies(),
            recorder: None,
        }
    }
}

/// Fails where the mapped read path cannot do the load of `plan`.
fn check_mappable(plan: &Plan) -> Result<()> {
    let reason = if plan.sizes().limit_bytes.is_some() {
        "the mapped read path uses the page cache and cannot keep a memory limit; use another read \
         path or no limit"
    } else if plan.has_gpus() {
        "the mapped read path leaves tensors in the page cache and cannot load them to a GPU; use \
         another read path, or load to cpu"
    } else if plan.dtype().is_some() {
        "the mapped read path hands out the file's own pages and cannot cast them; use another read \
         path, or no dtype"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, reason))
}
