//! The memory and the device transfers of a load: a ring for what stays in host memory, one for what passes
//! through on its way to GPUs.
//!
//! The second one is pinned, which takes as long as copying a small model. A loader keeps it for its
//! next load, as long as that fits: [`PinnedPool`]. It is let go with the loader (and its clones).

use super::Loader;
use crate::device::DeviceTransfer;
use crate::device::cuda::{
    Addresses, CudaTransfer, ExtentSource, Layout, PinnedRing, TransferSpec,
};
use crate::engine::Destination;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Allocation, Device};
use crate::plan::{Extent, Plan};
use crate::ring::Ring;
use crate::source::Source;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The pinned ring that a loader keeps between its loads.
#[derive(Clone, Default)]
pub(super) struct PinnedPool {
    ring: Arc<Mutex<Option<Arc<PinnedRing>>>>,
}

/// A pinned ring in use by one load; back to its loader on drop, if that is still there.
pub(super) struct PinnedGuard {
    ring: Arc<PinnedRing>,
    home: Weak<Mutex<Option<Arc<PinnedRing>>>>,
}

impl PinnedPool {
    /// A pinned ring of `bytes`, at most `most` bytes, in blocks of `block_bytes`, at NUMA node `node`:
    /// the one that was kept, if it is right.
    fn lease(
        &self,
        bytes: usize,
        most: usize,
        block_bytes: usize,
        node: Option<usize>,
    ) -> Result<PinnedGuard> {
        let kept = self.ring.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_right = |kept: &Arc<PinnedRing>| {
            let ring = kept.ring();
            let fits = (bytes..=most).contains(&ring.capacity());
            let fits = fits && ring.block_bytes() == block_bytes && ring.node() == node;
            fits && ring.reopen()
        };
        let ring = match kept.filter(is_right) {
            Some(kept) => kept,
            None => Arc::new(PinnedRing::new(Ring::keeping_memory(bytes, block_bytes, node)?)),
        };
        Ok(PinnedGuard { ring, home: Arc::downgrade(&self.ring) })
    }
}

impl Drop for PinnedGuard {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            let mut kept = home.lock().unwrap_or_else(PoisonError::into_inner);
            let former = kept.replace(Arc::clone(&self.ring));
            drop(kept);
            drop(former); // unpins, which takes its time
        }
    }
}

/// The rings of a load.
pub(super) struct Rings {
    pub host: Option<Arc<Ring>>,
    pub gpus: Option<PinnedGuard>,
}

/// How large the rings of a load have to be, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// `None` where nothing stays in host memory.
    pub host: Option<u64>,
    /// The least and the most for GPUs; `None` where nothing goes to one.
    pub gpus: Option<(u64, u64)>,
    /// What slots are aligned to.
    pub block: usize,
}

impl Sizes {
    /// Those of a plan's load.
    pub fn of(plan: &Plan) -> Self {
        let has_gpus = plan.has_gpus();
        // A load of nothing at all has a ring for the host.
        let has_host = plan.devices().contains(&Device::Host) || !has_gpus;
        Self {
            host: has_host.then(|| plan.host_ring_bytes()),
            gpus: has_gpus.then(|| (plan.gpu_ring_bytes(), plan.gpu_ring_bytes_max())),
            block: plan.block_bytes(),
        }
    }
}

impl Rings {
    /// For a load by `loader`; what GPUs read from is at NUMA node `node`.
    ///
    /// # Errors
    /// When the address space does not allow it.
    pub fn new(loader: &Loader, sizes: Sizes, node: Option<usize>) -> Result<Self> {
        let block = sizes.block;
        let host = sizes.host.map(|bytes| Ring::new(address_space(bytes)?, block)).transpose()?;
        let gpus = sizes.gpus.map(|(least, most)| {
            let least = address_space(least.max(1))?.next_multiple_of(block);
            let most = address_space(most)?.next_multiple_of(block);
            loader.kept.lease(least, most, block, node)
        });
        Ok(Self { host, gpus: gpus.transpose()? })
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Ring>> {
        self.host.iter().chain(self.gpus.iter().map(|lease| lease.ring.ring())).cloned().collect()
    }
}

/// A size in bytes as one of memory.
fn address_space(bytes: u64) -> Result<usize> {
    usize::try_from(bytes)
        .map_err(|_| Error::new(ErrorKind::OutOfMemory, "the checkpoint exceeds the address space"))
}

/// What extents are carried to which devices, and what stands in them.
pub(super) struct LoadSpec<'a> {
    pub devices: &'a [Device],
    pub extents: &'a Arc<[Extent]>,
    pub sources: &'a [Arc<dyn Source>],
    /// The layout on the GPU of this index among the devices.
    pub layout: &'a dyn Fn(usize) -> Layout,
    /// Whether GPUs sum up what arrives.
    pub verify: bool,
}

/// The device transfers of a load.
pub(super) type Carriers = Vec<Arc<dyn DeviceTransfer>>;

/// The places of the devices, and the device transfers among them.
pub(super) fn places(rings: &Rings, spec: &LoadSpec<'_>) -> Result<(Vec<Destination>, Carriers)> {
    let mut places = Vec::with_capacity(spec.devices.len());
    let mut transfers = Carriers::new();
    for (index, device) in spec.devices.iter().enumerate() {
        match (device, &rings.host, &rings.gpus) {
            (Device::Host, Some(ring), _) => {
                places.push(Destination { ring: Arc::clone(ring), transfer: None });
            }
            (Device::Cuda(ordinal), _, Some(lease)) => {
                let gpu: Arc<dyn DeviceTransfer> = Arc::new(CudaTransfer::new(TransferSpec {
                    ordinal: *ordinal,
                    extents: Arc::clone(spec.extents),
                    sources: spec.sources.iter().map(|source| extent_source(&**source)).collect(),
                    layout: (spec.layout)(index),
                    place: index,
                    verify: spec.verify,
                    ring: Arc::clone(&lease.ring),
                }));
                transfers.push(Arc::clone(&gpu));
                let ring = Arc::clone(lease.ring.ring());
                places.push(Destination { ring, transfer: Some(gpu) });
            }
            // Rings are made for the very devices of the load.
            _ => return Err(Error::new(ErrorKind::Unsupported, format!("no ring for {device}"))),
        }
    }
    Ok((places, transfers))
}

fn extent_source(source: &dyn Source) -> ExtentSource {
    ExtentSource { location: source.location().clone(), block_bytes: source.block_bytes() }
}

/// Where the tensors of a plan go on the GPU of index `place`.
pub(super) fn layout_of(plan: &Plan, place: usize, allocation: Allocation) -> Layout {
    let destination = match allocation {
        Allocation::PerShard => Addresses::PerShard,
        Allocation::PerTensor => Addresses::PerTensor,
    };
    let shards = plan.checkpoint().shards().len();
    Layout::new(Layout::items_of(plan), plan.extents(), place, shards, destination)
}
