//! The loader: its options, and the state that its loads share.

use super::pinned_pool::PinnedPool;
use crate::cache::Cache;
use crate::dtype::Dtype;
use crate::manifest::Manifest;
use crate::options::{Allocation, CheckpointOptions, DeviceMap, MemoryLimit, Order, ReadPath};
use crate::plan::Selection;
use crate::source::Opener;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Options of a load, and the methods that run one. Cheap to clone; one loader serves any number of
/// loads.
///
/// ```no_run
/// use ringload::{Loader, MemoryLimit};
///
/// # fn main() -> ringload::Result<()> {
/// // All tensors, resident:
/// let model = Loader::new().load("/models/llama-8b")?;
/// let embedding = model.get("model.embed_tokens.weight").expect("a llama has embeddings");
/// println!("{:?} {:?}: {} bytes", embedding.dtype(), embedding.shape(), embedding.bytes().len());
///
/// // One after the other through 2 GiB, each dropped before memory runs out:
/// let loader = Loader::new().memory_limit(MemoryLimit::Bytes(2 << 30));
/// for tensor in loader.stream("/models/llama-8b")? {
///     let tensor = tensor?;
///     println!("{}", tensor.name());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Loader {
    pub(super) options: LoaderOptions,
    /// The pinned ring that is kept between loads.
    pub(super) pinned: PinnedPool,
    /// Replaced whenever an option of remote locations is set. Its connections and credentials are
    /// shared by all loads of this loader and its clones.
    pub(super) opener: Arc<Opener>,
    /// The cache in front of the opener's objects.
    pub(super) cache: Arc<Cache>,
}

/// The options of a loader, except those of remote locations and of the cache.
#[derive(Debug, Clone)]
pub(super) struct LoaderOptions {
    pub memory_limit: Option<MemoryLimit>,
    pub read_path: ReadPath,
    pub immutable: bool,
    /// The number of engines; 0 lets the loader choose.
    pub engines: usize,
    pub read_bytes: Option<u64>,
    pub order: Order,
    pub checkpoint: CheckpointOptions,
    pub selection: Selection,
    pub hold_timeout: Duration,
    pub consumer_holds_one: bool,
    pub caller_may_retain_all: bool,
    pub devices: DeviceMap,
    pub allocation: Allocation,
    pub dtype: Option<Dtype>,
    pub timeline: bool,
    pub verify: bool,
    pub manifest: Option<Manifest>,
    pub check_finite: bool,
    /// The directory that holds the kernel's /proc and /sys.
    pub system_root: PathBuf,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            memory_limit: None,
            read_path: ReadPath::default(),
            immutable: false,
            engines: 0,
            read_bytes: None,
            order: Order::default(),
            checkpoint: CheckpointOptions::default(),
            selection: Selection::default(),
            hold_timeout: Duration::from_secs(10),
            consumer_holds_one: false,
            caller_may_retain_all: false,
            devices: DeviceMap::default(),
            allocation: Allocation::default(),
            dtype: None,
            timeline: false,
            verify: false,
            manifest: None,
            check_finite: false,
            system_root: PathBuf::from("/"),
        }
    }
}

impl Default for Loader {
    fn default() -> Self {
        let cache = Arc::<Cache>::default();
        Self {
            options: LoaderOptions::default(),
            pinned: PinnedPool::default(),
            opener: Arc::new(Opener::default().with_cache(cache.clone())),
            cache,
        }
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loader").field(&self.options).finish()
    }
}

/// This loader, sharing its pinned ring with all loaders of the process that this was called for.
pub fn sharing_pinned_ring(loader: Loader) -> Loader {
    Loader { pinned: PinnedPool::of_process(), ..loader }
}
