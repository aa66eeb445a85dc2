//! The verb: a [`Loader`] brings the tensors of a checkpoint into memory.
//!
//! ```text
//! Loader::stream:  locations -> Checkpoint -> Plan -> Ring + engines -> TensorStream -> Tensor ...
//! Loader::load:    the same, collected
//! Loader::read_tensor: one tensor of an open checkpoint, or a part of it
//! Loader::read_into: byte ranges of locations -> engines -> the caller's own memory
//! ```

mod caching;
mod download;
mod gds;
mod holding;
mod listing;
mod loaded;
mod mapped;
mod numa_affinity;
mod option_table;
mod part;
mod read_into;
mod remote;
mod rings;
mod stream;
mod summary;
mod timeline;
mod tuning;

pub use download::{Download, Downloaded};
pub use listing::Listed;
pub use loaded::Loaded;
pub use option_table::{LoaderOption, OptionGroup, OptionKind};
pub use read_into::ReadRequest;
pub use stream::{Progress, TensorStream};
pub use summary::Summary;

#[cfg(feature = "capi")]
pub(crate) use crate::engine::CancelHandle;

use crate::cache::Cache;
use crate::checkpoint::Checkpoint;
use crate::engine::{EngineWork, Job, LoadHandle, RingWork};
use crate::error::Result;
use crate::location::IntoLocations;
use crate::options::{self, Allocation, DeviceMap, MemoryLimit, Order, ReadPath};
use crate::plan::{Plan, Selection};
use crate::source::{Opener, Source};
use crate::timeline::Recorder;
use gds::LoadPath;
use rings::{LoadSpec, PinnedGuard, PinnedPool, Rings, Sizes};
use safetensors::Dtype;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tuning::{Tuning, TuningRequest};

/// One in so many bytes of a ring whose memory is used again may wait to be written to the cache.
const CACHE_SHARE: u64 = 4;

/// Options of a load, and the calls that do it. Cheap to clone; one loader serves any number of
/// loads.
///
/// ```no_run
/// use ringload::{Loader, MemoryLimit};
///
/// # fn main() -> ringload::Result<()> {
/// // All tensors, resident:
/// let model = Loader::new().load("/models/llama")?;
/// let embedding = model.get("model.embed_tokens.weight").expect("a llama has embeddings");
/// println!("{:?} {:?}: {} bytes", embedding.dtype(), embedding.shape(), embedding.bytes().len());
///
/// // One after the other through 256 MiB, each dropped before memory runs out:
/// let loader = Loader::new().memory_limit(MemoryLimit::Bytes(256 << 20));
/// for tensor in loader.stream("/models/llama")? {
///     let tensor = tensor?;
///     println!("{}", tensor.name());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Loader {
    memory_limit: Option<MemoryLimit>,
    read_path: ReadPath,
    engines: usize,
    read_bytes: Option<u64>,
    order: Order,
    selection: Selection,
    hold_timeout: Duration,
    consumer_holds_one: bool,
    caller_may_retain_all: bool,
    devices: DeviceMap,
    allocation: Allocation,
    dtype: Option<Dtype>,
    timeline: bool,
    kept: PinnedPool,
    /// Where the kernel's /proc and /sys are.
    system_root: PathBuf,
    /// Made anew by every option of remote locations; its connections and credentials are shared by
    /// all loads of this loader and its clones.
    opener: Arc<Opener>,
    /// Stands before the opener's objects.
    cache: Arc<Cache>,
}

impl Default for Loader {
    fn default() -> Self {
        let cache = Arc::<Cache>::default();
        Self {
            memory_limit: None,
            read_path: ReadPath::Auto,
            engines: 0,
            read_bytes: None,
            order: Order::Completion,
            selection: Selection::default(),
            hold_timeout: Duration::from_secs(10),
            consumer_holds_one: false,
            caller_may_retain_all: false,
            devices: DeviceMap::default(),
            allocation: Allocation::default(),
            dtype: None,
            timeline: false,
            kept: PinnedPool::default(),
            system_root: PathBuf::from("/"),
            opener: Arc::new(Opener::default().with_cache(cache.clone())),
            cache,
        }
    }
}

impl Loader {
    /// A loader with the default options: no memory limit, read path `auto`, engines as many as
    /// help, tensors in completion order, into host memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much memory tensors may take at once. Wins over the environment
    /// ([`options`](crate::options)).
    #[must_use]
    pub fn memory_limit(mut self, limit: MemoryLimit) -> Self {
        self.memory_limit = Some(limit);
        self
    }

    /// How local files are read.
    #[must_use]
    pub fn read_path(mut self, path: ReadPath) -> Self {
        self.read_path = path;
        self
    }

    /// How many engines (threads) read; 0 means as many as help. Wins over the environment.
    #[must_use]
    pub fn engines(mut self, engines: usize) -> Self {
        self.engines = engines;
        self
    }

    /// How many bytes one read of a file, or one range of an object, asks for, instead of 8 MiB.
    /// From 4 KiB to 256 MiB, rounded up to the file's blocks. A small memory limit makes them smaller,
    /// so that eight of them (of ranges sixteen) fit it.
    #[must_use]
    pub fn read_bytes(mut self, bytes: u64) -> Self {
        self.read_bytes = Some(bytes);
        self
    }

    /// In which order a stream yields tensors.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Only tensors whose name matches one of these globs (`*` and `?` match any character, `[ab]`
    /// one of several, `{a,b}` alternatives). Replaces what was set before; none means all.
    #[must_use]
    pub fn tensors(mut self, globs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.selection.globs = globs.into_iter().map(Into::into).collect();
        self
    }

    /// Only the tensors of these names (besides those that a glob of [`tensors`](Self::tensors)
    /// matches), in the order of the checkpoint; a name that no tensor has is an error then. Replaces
    /// what was set before. No names are no tensors.
    #[must_use]
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.selection.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Where tensors end up: a [`Device`](crate::Device), or a map from their names to devices.
    /// Default: host memory.
    ///
    /// A GPU's tensors pass through a ring of pinned host memory, which the loader keeps for its next
    /// load. The memory limit bounds that ring, and with it the host's memory, not the GPU's.
    #[must_use]
    pub fn device(mut self, devices: impl Into<DeviceMap>) -> Self {
        self.devices = devices.into();
        self
    }

    /// How memory of GPUs is allocated for tensors.
    #[must_use]
    pub fn allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// Casts floats to F32, F16 or BF16 on their way in: tensors of F32, F16, BF16, F8_E4M3 and
    /// F8_E5M2. All others, F64 among them, stay as they are. What the results are, bit for bit, says
    /// [`cast`](crate::cast).
    ///
    /// In host memory a tensor that is cast is there as stored and as cast for a moment, and a memory
    /// limit counts both. What goes to a GPU is cast there.
    #[must_use]
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Looks below `root` for the /proc and /sys that tell what the machine has: for tests of other
    /// machines than the one they run on.
    #[doc(hidden)]
    #[must_use]
    pub fn system_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.system_root = root.into();
        self
    }

    /// Opens the checkpoint at `locations`, reading its headers only, with this loader's options for
    /// remote locations.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn open(&self, locations: impl IntoLocations) -> Result<Checkpoint> {
        let opener = self.opener.renewed().for_gpus(self.devices.has_only_gpus());
        Checkpoint::open_with(&opener, locations.into_locations()?)
    }

    /// What opens sources with this loader's options.
    #[cfg(any(feature = "capi", test))]
    pub(crate) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Loads all tensors of the checkpoint at `locations` and keeps them resident.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind); among them
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit) when the tensors together, in whole blocks of
    /// the file system, are larger than the memory limit.
    pub fn load(&self, locations: impl IntoLocations) -> Result<Loaded> {
        Loaded::collect(self.stream(locations)?)
    }

    /// As [`load`](Self::load), for a checkpoint that is open already.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_checkpoint(&self, checkpoint: Arc<Checkpoint>) -> Result<Loaded> {
        Loaded::collect(self.stream_checkpoint(checkpoint)?)
    }

    /// Loads the tensors of the checkpoint at `locations`, handing each out as soon as it is there.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind). Errors met while reading come as an item of the stream.
    pub fn stream(&self, locations: impl IntoLocations) -> Result<TensorStream> {
        let began = Instant::now();
        self.start(Arc::new(self.open(locations)?), began)
    }

    /// As [`stream`](Self::stream), for a checkpoint that is open already.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn stream_checkpoint(&self, checkpoint: Arc<Checkpoint>) -> Result<TensorStream> {
        self.start(checkpoint, Instant::now())
    }

    fn start(&self, checkpoint: Arc<Checkpoint>, began: Instant) -> Result<TensorStream> {
        let limit = self.resolved_memory_limit()?;
        self.dtype.map_or(Ok(()), options::check_dtype)?;
        let plan = Plan::new(checkpoint, limit, &self.selection, &self.devices, self.dtype)?;
        let plan = Arc::new(plan);
        self.check_verifiable(&plan)?;
        let recorder = self.timeline.then(|| Recorder::new(began));
        if let Some(recorder) = &recorder {
            recorder.step("open", None, began);
        }
        let started = match self.read_path {
            ReadPath::Mapped => self.start_mapped(&plan, recorder)?,
            _ => self.start_reading(&plan, recorder)?,
        };
        Ok(TensorStream::new(plan, started, self.order, began))
    }

    fn start_reading(&self, plan: &Arc<Plan>, recorder: Option<Arc<Recorder>>) -> Result<Started> {
        let checkpoint = plan.checkpoint();
        let sources: Vec<_> =
            checkpoint.shards().iter().map(|shard| Arc::clone(shard.source())).collect();
        let downgrade = match self.way(plan, &sources)? {
            LoadPath::Gds(gpus) => return self.start_gds(plan, sources, gpus, recorder),
            LoadPath::Ring(downgrade) => downgrade,
        };
        let tuning = self.tuning(plan.ring_bytes(), plan.total_bytes(), &sources)?;
        let near = self.near(plan.devices());
        let rings = Rings::new(self, Sizes::of(plan), near.as_ref().map(|near| near.node))?;
        let spec = LoadSpec {
            devices: plan.devices(),
            extents: plan.extents_shared(),
            sources: &sources,
            layout: &|place| rings::layout_of(plan, place, self.allocation),
            verify: self.verifies(),
        };
        let (places, transfers) = rings::places(&rings, &spec)?;
        let extents = Arc::clone(plan.extents_shared());
        let chunk_bytes = tuning.chunk_bytes;
        let work = RingWork::new(extents, sources.clone(), places, chunk_bytes, recorder.clone());
        let all = rings.all();
        // What all bytes of GPUs pass through is worth most to be registered, and comes last.
        let register = all.last().filter(|_| tuning.register).cloned();
        let job = Job {
            rings: all,
            transfers,
            register,
            affinity: near,
            recorder,
            ..self.job(sources, &tuning)
        };
        let running = LoadHandle::start(job, EngineWork::Reads(Arc::new(work)))?;
        if let Some(bytes) = plan.reused_ring_bytes() {
            running.stats().counters.hold_at_most(bytes / CACHE_SHARE);
        }
        downgrade.into_iter().for_each(|downgrade| running.stats().downgrade(downgrade));
        Ok(Started { running, ring_bytes: plan.ring_bytes(), _lease: rings.gpus })
    }

    fn tuning(
        &self,
        ring_bytes: u64,
        total_bytes: u64,
        sources: &[Arc<dyn Source>],
    ) -> Result<Tuning> {
        let wants = TuningRequest {
            engines: self.engine_count()?,
            connections: self.opener.options.connections,
            read_bytes: self.read_bytes,
        };
        Ok(Tuning::choose(wants, ring_bytes, total_bytes, sources))
    }

    fn job(&self, sources: Vec<Arc<dyn Source>>, tuning: &Tuning) -> Job {
        Job {
            sources,
            rings: Vec::new(),
            transfers: Vec::new(),
            affinity: None,
            read_path: match self.read_path {
                ReadPath::Gds => ReadPath::Auto, // engines do what it cannot
                path => path,
            },
            engines: tuning.engines,
            depth: tuning.depth,
            register: None,
            ahead_bytes: tuning.ahead_bytes,
            hold_timeout: self.hold_timeout,
            caller_may_retain_all: self.caller_may_retain_all,
            verify: self.verifies(),
            recorder: None,
        }
    }

    fn resolved_memory_limit(&self) -> Result<MemoryLimit> {
        let limit = match self.memory_limit {
            Some(limit) => limit,
            None => options::memory_limit_from(options::environment)?.unwrap_or_default(),
        };
        Ok(match limit {
            MemoryLimit::Min if self.consumer_holds_one => MemoryLimit::MinHoldingOne,
            limit => limit,
        })
    }

    /// How many engines were asked for, if any number was.
    fn engine_count(&self) -> Result<Option<usize>> {
        match self.engines {
            0 => options::engines_from(options::environment, options::cores()),
            engines => Ok(Some(engines)),
        }
    }
}

/// A load that was started.
struct Started {
    /// Dropped first: it waits until nobody uses the rings any more.
    running: LoadHandle,
    ring_bytes: u64,
    /// Goes back to the loader.
    _lease: Option<PinnedGuard>,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("memory_limit", &self.memory_limit)
            .field("read_path", &self.read_path)
            .field("engines", &self.engines)
            .field("order", &self.order)
            .field("selection", &self.selection)
            .field("hold_timeout", &self.hold_timeout)
            .field("devices", &self.devices)
            .field("allocation", &self.allocation)
            .field("dtype", &self.dtype)
            .finish()
    }
}
