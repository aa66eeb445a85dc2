//! Starts loads: chooses the read path, makes the engines' job and starts it.

use super::gds::LoadPath;
use super::loader::Loader;
use super::memory_check;
use super::pinned_pool::PinnedGuard;
use super::report::LoadReport;
use super::rings::{DestinationSpec, Rings, layout_of};
use crate::checks::LoadChecks;
use crate::engine::{EngineWork, GatherWork, GdsWork, Job, LoadHandle, MappedWork, RingWork};
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Device, ReadPath};
use crate::plan::{Plan, ReadOptions, ReadSizes};
use crate::ring::{Mapping, Ring};
use crate::source::{CONNECTIONS_MAX, Downgrade, Source, connections_allowed, open_files_max};
use crate::sys;
use crate::timeline::Recorder;
use std::sync::Arc;
use tracing::Span;

/// A load that was started.
pub(super) struct StartedLoad {
    /// Dropped first, which waits until no thread uses the rings any more.
    pub handle: LoadHandle,
    pub ring_bytes: u64,
    /// Returns the pinned ring to the loader.
    pinned: Option<PinnedGuard>,
    /// Whether dropping it waits until its threads have ended. Otherwise another thread waits.
    pub waits_at_end: bool,
}

impl StartedLoad {
    pub fn new(handle: LoadHandle, ring_bytes: u64, pinned: Option<PinnedGuard>) -> Self {
        Self { handle, ring_bytes, pinned, waits_at_end: true }
    }
}

impl Drop for StartedLoad {
    fn drop(&mut self) {
        if !self.waits_at_end && !self.handle.has_ended() {
            self.handle.cancel();
            // In this order. If no thread can be started, this one waits for the reads in flight.
            let left = (self.handle.take(), self.pinned.take());
            drop(sys::spawn("ringload-end", move || drop(left)));
        }
    }
}

impl Loader {
    /// Starts the load of `plan`, whose bytes are given to `checks`. Tensors stay in `ring`, if there is
    /// one, which another load has used.
    pub(super) fn start_load(
        &self,
        plan: &Arc<Plan>,
        checks: LoadChecks,
        recorder: Option<Arc<Recorder>>,
        ring: Option<&Arc<Ring>>,
        report: &LoadReport,
    ) -> Result<StartedLoad> {
        let shards = plan.checkpoint().shards();
        let sources: Vec<_> = shards.iter().map(|shard| Arc::clone(shard.source())).collect();
        let path = self.load_path(plan, &sources)?;
        let sizes = plan.sizes();
        let options = ReadOptions { to_gpus: plan.has_gpus(), ..self.read_options()? };
        let reads = ReadSizes::new(options, sizes.ring_bytes(), plan.total_bytes(), &sources);
        let mut job = self.job(sources.clone(), reads, plan.devices());
        (job.recorder, job.span) = (recorder.clone(), report.span_of_reads());
        job.arrivals = Some(report.plan(plan, &sources));
        job.checks = Arc::new(checks);
        job.is_whole = plan.is_whole();
        let extents = Arc::clone(plan.extents());
        let (mut ring_bytes, mut pinned, mut downgraded) = (0, None, None);
        let work = match path {
            LoadPath::Mapped => EngineWork::Mapped(MappedWork::new(Arc::clone(plan))),
            LoadPath::Private(mappings) => {
                EngineWork::Mapped(MappedWork::private(Arc::clone(plan), mappings))
            }
            LoadPath::Gds(gpus) => {
                let (threads, bounce_bytes) = sizes.gds_threads(options, extents.len());
                job.engines = threads;
                EngineWork::Gds(GdsWork::new(extents, sources, gpus, bounce_bytes))
            }
            LoadPath::Ring(downgrade) => {
                memory_check::check(sizes, reads.engines, &self.options.system_root)?;
                let affinity = job.affinity.as_deref();
                let rings = Rings::new(self, plan.devices(), sizes, affinity, ring)?;
                let destinations = rings.destinations(&DestinationSpec {
                    devices: plan.devices(),
                    extents: &extents,
                    sources: &sources,
                    layout: &|index| layout_of(plan, index, self.options.allocation),
                    verify: self.verifies_on_gpus(),
                    system_root: &self.options.system_root,
                })?;
                job.use_rings(rings.all(), &destinations);
                let gather = rings.gather.map(|ring| GatherWork::new(Arc::clone(plan), ring));
                // If there are two rings, the last one is the GPUs' ring, which gains most from
                // being registered.
                let is_direct = self.options.read_path == ReadPath::Direct;
                let registers = reads.register && (is_direct || !begin_cached(&job.sources));
                job.register = job.rings.last().filter(|_| registers).cloned();
                (ring_bytes, pinned, downgraded) = (sizes.ring_bytes(), rings.gpus, downgrade);
                let chunks = reads.chunks;
                let work = RingWork::new(extents, sources, destinations, chunks, recorder)
                    .of_engines(job.engines)
                    .checked_by(job.checks.finite.clone())
                    .packing(Arc::clone(plan))
                    .gathering(gather);
                EngineWork::Reads(Arc::new(work))
            }
        };
        let uses_rings = matches!(work, EngineWork::Reads(_));
        let handle = LoadHandle::start(job, work)?;
        if let Some(bytes) = sizes.cache_held_bytes().filter(|_| uses_rings) {
            handle.stats().counters.hold_at_most(bytes);
        }
        let few = few_connections(options.connections, reads.connections);
        downgraded.into_iter().chain(few).for_each(|it| handle.stats().downgrade(it));
        Ok(StartedLoad::new(handle, ring_bytes, pinned))
    }

    /// Chooses the read path for the load of `plan`.
    ///
    /// # Errors
    /// When the mapped read path is set and cannot be used for the load; when a GPU is missing or
    /// has too little memory.
    fn load_path(&self, plan: &Plan, sources: &[Arc<dyn Source>]) -> Result<LoadPath> {
        if self.options.read_path == ReadPath::Mapped {
            check_mappable(plan)?;
            return Ok(LoadPath::Mapped);
        }
        match self.private_mappings(plan, sources) {
            Some(mappings) => Ok(LoadPath::Private(mappings)),
            None => self.gds_or_ring(plan, sources),
        }
    }

    /// Maps the files of a load whose bytes do not change, by the word of the caller or by their names,
    /// if that is as fast as reading them. `None` where the tensors have to have memory of their own.
    fn private_mappings(
        &self,
        plan: &Plan,
        sources: &[Arc<dyn Source>],
    ) -> Option<Vec<Arc<Mapping>>> {
        let options = &self.options;
        let is_mapped = options.read_path == ReadPath::Auto
            && sources.iter().all(|source| options.immutable || source.is_immutable())
            && !sources.is_empty()
            && check_mappable(plan).is_ok()
            && !self.checks_bytes()
            && sources.iter().all(|source| source.maps_fast());
        let map = |source: &Arc<dyn Source>| source.map_private().ok();
        let files = is_mapped.then(|| sources.iter().map(map).collect::<Option<Vec<_>>>())??;
        Some(files.iter().map(|file| Arc::clone(file.mapping())).collect())
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
            connections: reads.connections,
            register: None,
            ahead_bytes: reads.ahead_bytes,
            hold_timeout: self.options.hold_timeout,
            caller_may_retain_all: self.options.caller_may_retain_all,
            verify: self.verifies_sources(),
            checks: Arc::default(),
            is_whole: false,
            cancellation: self.opener.cancellation().clone(),
            recorder: None,
            arrivals: None,
            span: Span::none(),
        }
    }
}

/// Whether a load of `sources` begins and ends with bytes in the page cache. Registered memory is of no use
/// to copies from there, and registering it takes time.
fn begin_cached(sources: &[Arc<dyn Source>]) -> bool {
    let ends = [sources.first(), sources.last()];
    ends.iter().flatten().all(|source| source.begins_cached())
}

/// A limit of open files that suffices for the most connections of several loads.
const OPEN_FILES_ENOUGH: u64 = 4096;

/// Reports that `ulimit -n` permits fewer connections than are `wanted`, or than an adapting load may
/// have. `first` is the number at first, 0 without remote sources.
fn few_connections(wanted: Option<usize>, first: usize) -> Option<Downgrade> {
    let (wanted, allowed) = (wanted.unwrap_or(CONNECTIONS_MAX), connections_allowed());
    (first > 0 && allowed < wanted).then(|| {
        let why = format!(
            "ulimit -n permits {allowed} of {wanted} connections; it is {}: raise it, for example by \
             ulimit -n {OPEN_FILES_ENOUGH}",
            open_files_max()
        );
        tracing::warn!("{why}");
        Downgrade { from: "many connections", to: "fewer connections", why }
    })
}

/// Fails if the mapped read path cannot be used for the load of `plan`.
fn check_mappable(plan: &Plan) -> Result<()> {
    let reason = if plan.sizes().limit_bytes.is_some() {
        "the mapped read path uses the page cache and cannot keep a memory limit; use another read \
         path or no limit"
    } else if plan.has_gpus() {
        "the mapped read path leaves tensors in the page cache and cannot load them to a GPU; use \
         another read path, or load to cpu"
    } else if plan.has_gaps() {
        "the mapped read path hands out the file's own pages and cannot gather slices of inner \
         dimensions; use another read path, or slice the first dimension only"
    } else if plan.dtype().is_some() {
        "the mapped read path hands out the file's own pages and cannot cast them; use another read \
         path, or no dtype"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, reason))
}
