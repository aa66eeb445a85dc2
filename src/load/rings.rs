//! The rings and device transfers of a load: one ring for tensors that stay in host memory, and one
//! through which tensors pass on their way to GPUs. The second one is pinned.

use super::loader::Loader;
use super::pinned_pool::PinnedGuard;
use crate::device::DeviceTransfer;
use crate::device::cuda::{Addresses, CudaTransfer, ExtentSource, Layout, TransferSpec};
use crate::engine::Destination;
use crate::error::{Error, ErrorKind, Result};
use crate::numa::NumaAffinity;
use crate::options::{Allocation, Device};
use crate::plan::{Extent, LoadSizes, Plan};
use crate::ring::Ring;
use crate::source::Source;
use std::path::Path;
use std::sync::Arc;

/// The rings of a load.
#[derive(Default)]
pub(super) struct Rings {
    pub host: Option<Arc<Ring>>,
    /// The ring of pieces from which parts of tensors are gathered for the host.
    pub gather: Option<Arc<Ring>>,
    pub gpus: Option<PinnedGuard>,
}

/// The devices of a load and the layouts of their tensors.
pub(super) struct DestinationSpec<'a> {
    pub devices: &'a [Device],
    pub extents: &'a Arc<[Extent]>,
    pub sources: &'a [Arc<dyn Source>],
    /// The layout of tensors on the GPU with this index among the devices.
    pub layout: &'a dyn Fn(usize) -> Layout,
    /// Whether GPUs compute checksums of the bytes that they receive.
    pub verify: bool,
    /// The directory that holds the kernel's /proc and /sys.
    pub system_root: &'a Path,
}

impl Rings {
    /// Rings for a load by `loader` to `devices`. The ring for GPUs prefers the NUMA node of
    /// `affinity`. A load without tensors has a ring for the host, which is `host` if it is given.
    ///
    /// # Errors
    /// When the address space is too small.
    pub fn new(
        loader: &Loader,
        devices: &[Device],
        sizes: &LoadSizes,
        affinity: Option<&NumaAffinity>,
        host: Option<&Arc<Ring>>,
    ) -> Result<Self> {
        let block = sizes.block_bytes as usize;
        let has_gpus = devices.iter().any(|device| !device.is_host());
        let has_host = devices.contains(&Device::Host) || !has_gpus;
        let new_ring = |bytes| Ring::new(address_space(bytes, block)?, block);
        let new_host = || match host {
            Some(ring) => Ok(Arc::clone(ring)),
            None => new_ring(sizes.host_ring_bytes),
        };
        let gather_bytes = Some(sizes.gather_ring_bytes).filter(|&bytes| bytes > 0);
        let take_pinned = || {
            let least = address_space(sizes.gpu_ring_bytes.max(1), block)?;
            // A limit may be any number; a ring that is kept is of a size that was mapped.
            let most = address_space(sizes.gpu_ring_bytes_max, block).unwrap_or(usize::MAX);
            loader.pinned.take(least..=most, block, affinity.map(|affinity| affinity.node))
        };
        Ok(Self {
            host: has_host.then(new_host).transpose()?,
            gather: gather_bytes.map(new_ring).transpose()?,
            gpus: has_gpus.then(take_pinned).transpose()?,
        })
    }

    /// All rings of the load.
    pub fn all(&self) -> Vec<Arc<Ring>> {
        let gpus = self.gpus.iter().map(|pinned| pinned.ring().ring());
        self.host.iter().chain(&self.gather).chain(gpus).cloned().collect()
    }

    /// The destinations of the load, one per device.
    pub fn destinations(&self, spec: &DestinationSpec<'_>) -> Result<Vec<Destination>> {
        let devices = spec.devices.iter().enumerate();
        devices.map(|(index, device)| self.destination(spec, index, *device)).collect()
    }

    fn destination(
        &self,
        spec: &DestinationSpec<'_>,
        index: usize,
        device: Device,
    ) -> Result<Destination> {
        let extent_source = |source: &Arc<dyn Source>| ExtentSource {
            location: source.location().clone(),
            block_bytes: source.block_bytes(),
        };
        match (device, &self.host, &self.gpus) {
            (Device::Host, Some(ring), _) => {
                Ok(Destination { ring: Arc::clone(ring), transfer: None })
            }
            (Device::Cuda(ordinal), _, Some(pinned)) => {
                let transfer: Arc<dyn DeviceTransfer> = Arc::new(CudaTransfer::new(TransferSpec {
                    ordinal,
                    extents: Arc::clone(spec.extents),
                    sources: spec.sources.iter().map(extent_source).collect(),
                    layout: (spec.layout)(index),
                    destination: index,
                    verify: spec.verify,
                    system_root: spec.system_root.to_owned(),
                    ring: Arc::clone(pinned.ring()),
                }));
                let ring = Arc::clone(pinned.ring().ring());
                Ok(Destination { ring, transfer: Some(transfer) })
            }
            // Unreachable: the rings are made for the devices of the load.
            _ => Err(Error::new(ErrorKind::Unsupported, format!("no ring for {device}"))),
        }
    }
}

/// A size in bytes as a size in memory, in whole blocks.
fn address_space(bytes: u64, block: usize) -> Result<usize> {
    let blocks =
        usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_next_multiple_of(block));
    blocks.ok_or_else(|| {
        Error::new(ErrorKind::OutOfMemory, "the checkpoint exceeds the address space")
    })
}

/// The layout of a plan's tensors on the GPU with this index among its devices.
pub(super) fn layout_of(plan: &Plan, index: usize, allocation: Allocation) -> Layout {
    let destination = match allocation {
        Allocation::PerShard => Addresses::PerShard,
        Allocation::PerTensor => Addresses::PerTensor,
    };
    let shards = plan.checkpoint().shards().len();
    Layout::new(Layout::items_of(plan), plan.extents(), index, shards, destination).gathering(plan)
}
