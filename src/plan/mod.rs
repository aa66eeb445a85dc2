//! The plan of a load: which bytes to read, in which order, into how much memory.
//!
//! ```text
//! tensors of a shard, by offset:   a  b  c  [ d (large) ]  e        (b not selected)
//! extents:                        |a|    |c| |    d     | |e|
//! a slot (aligned to blocks):                [  .  d  .   ]   cut into reads of chunk_bytes
//! ```
//!
//! An [`Extent`] is a contiguous byte range of one shard that fills one slot. For the host it holds
//! whole tensors: neighbours are gathered until it is large enough, a large tensor has one of its
//! own. On the way to a GPU tensors are only passing, so there extents end where reads are best
//! aligned, tensors or not. Everything is linear in the number of tensors, and an extent costs a few
//! words.

mod chunk;
mod extent;
mod runs;
mod select;

pub use chunk::{Chunk, chunk_ends};
pub use extent::Extent;
pub(crate) use extent::{Span, pieces_of};
pub use runs::Pick;
pub(crate) use runs::{Read, Runs};
pub use select::Selection;
pub(crate) use select::position;

use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Device, DeviceMap, MemoryLimit};
use crate::ring::{Budget, Needs, PAGE_BYTES};
use extent::{Gather, Shape};
use safetensors::Dtype;
use std::sync::Arc;

/// What a load will do.
#[derive(Debug)]
pub struct Plan {
    checkpoint: Arc<Checkpoint>,
    /// Indices into the checkpoint's tensors; extents name ranges of this.
    tensors: Vec<u32>,
    /// The devices that tensors go to; extents name them by index.
    devices: Vec<Device>,
    extents: Arc<[Extent]>,
    budget: Budget,
    block_bytes: usize,
    host: Share,
    gpus: Share,
    total_bytes: u64,
    dtype: Option<Dtype>,
    delivered_bytes: u64,
}

/// The memory that the slots of some extents need.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    slots_bytes: u64,
    largest_slot_bytes: u64,
}

impl Plan {
    /// Plans a load of the tensors in `selection` to the devices that `map` says; floats are cast to
    /// `dtype`, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] when the limit is below the largest tensor of the host,
    /// [`ErrorKind::InvalidInput`] for a glob that does not parse, [`ErrorKind::NotFound`] when no
    /// tensor matches or has a name.
    pub fn new(
        checkpoint: Arc<Checkpoint>,
        limit: MemoryLimit,
        selection: &Selection,
        map: &DeviceMap,
        dtype: Option<Dtype>,
    ) -> Result<Self> {
        let tensors = selection.indices(&checkpoint)?;
        let (devices, destinations) = assign(&checkpoint, &tensors, map)?;
        let block_bytes = largest_block_bytes(&checkpoint);
        let is_host = |destination: u8| devices[usize::from(destination)].is_host();
        let mut needs = Needs { block_bytes: block_bytes as u64, ..Needs::default() };
        let (mut total_bytes, mut delivered_bytes) = (0, 0);
        for (&index, &destination) in tensors.iter().zip(&destinations) {
            let info = &checkpoint.tensors()[index as usize];
            let (bytes, delivered) = (info.len_bytes(), delivered_bytes_of(info, dtype));
            total_bytes += bytes;
            delivered_bytes += delivered;
            if is_host(destination) {
                let cast = if cast_of(info, dtype).is_some() { delivered } else { 0 };
                if bytes + cast > needs.host_largest_bytes {
                    needs.host_largest_bytes = bytes + cast;
                    needs.host_largest_cast_bytes = cast;
                }
                needs.host_bytes += bytes + cast;
            } else {
                needs.device_bytes += bytes;
            }
        }
        let budget = Budget::new(limit, needs)?;
        let shape = |device: &Device| match device {
            Device::Host => Shape::Whole(budget.extent_bytes),
            Device::Cuda(_) => Shape::Pieces(budget.piece_bytes),
        };
        let shapes: Vec<Shape> = devices.iter().map(shape).collect();
        let gather = Gather {
            checkpoint: &checkpoint,
            tensors: &tensors,
            destinations: &destinations,
            shapes: &shapes,
            dtype,
        };
        let extents = gather.extents();
        let (mut host, mut gpus) = (Share::default(), Share::default());
        for extent in &extents {
            let share = if is_host(extent.destination() as u8) { &mut host } else { &mut gpus };
            let slot_bytes = extent.slot_bytes(&checkpoint, block_bytes);
            share.slots_bytes += slot_bytes;
            share.largest_slot_bytes = share.largest_slot_bytes.max(slot_bytes);
        }
        Ok(Self {
            tensors,
            devices,
            extents: extents.into(),
            budget,
            block_bytes,
            host,
            gpus,
            total_bytes,
            dtype,
            delivered_bytes,
            checkpoint,
        })
    }

    /// The checkpoint it was made for.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The extents, in the order of the checkpoint.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The same, to be kept.
    pub(crate) fn extents_shared(&self) -> &Arc<[Extent]> {
        &self.extents
    }

    /// The devices that tensors go to; extents name them by index.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Whether any tensor goes to a GPU.
    pub fn has_gpus(&self) -> bool {
        self.devices.iter().any(|device| !device.is_host())
    }

    /// The tensors that are loaded, as indices into [`Checkpoint::tensors`].
    pub fn tensors(&self) -> &[u32] {
        &self.tensors
    }

    /// The tensors of one extent, as indices into [`Checkpoint::tensors`].
    pub fn tensors_of(&self, extent: &Extent) -> &[u32] {
        &self.tensors[extent.positions()]
    }

    /// How many tensors are selected.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The sum of the selected tensors' bytes, as stored.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The same as they are delivered: cast, where they are.
    pub fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// How `tensor` is cast, if it is.
    pub(crate) fn cast_of(&self, tensor: &TensorInfo) -> Option<Cast> {
        cast_of(tensor, self.dtype)
    }

    /// What floats are cast to.
    pub(crate) fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// The memory limit in force, in bytes.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.budget.limit_bytes
    }

    /// What slots are aligned to: the largest block of the sources, at least a page.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// How much memory all slots of tensors that stay in host memory take: those, in whole blocks.
    pub fn host_slots_bytes(&self) -> u64 {
        self.host.slots_bytes
    }

    /// How large the ring has to be that tensors stay in, in bytes; 0 if none do.
    pub fn host_ring_bytes(&self) -> u64 {
        self.budget.ring_bytes(self.host.slots_bytes, self.host.largest_slot_bytes)
    }

    /// How large the ring has to be that tensors pass through on their way to GPUs; 0 if none do.
    pub fn gpu_ring_bytes(&self) -> u64 {
        self.gpus.slots_bytes.min(self.budget.gpu_ring_bytes)
    }

    /// How large that ring may be.
    pub(crate) fn gpu_ring_bytes_max(&self) -> u64 {
        self.budget.gpu_ring_bytes
    }

    /// How much memory is used again and again: all of it under a limit, and what tensors pass through
    /// on their way to GPUs. `None` where none is.
    pub(crate) fn reused_ring_bytes(&self) -> Option<u64> {
        match (self.gpu_ring_bytes(), self.limit_bytes()) {
            (0, limit) => limit.map(|_| self.ring_bytes()),
            (gpus, _) => Some(gpus),
        }
    }

    /// How large both rings are together, in bytes.
    pub fn ring_bytes(&self) -> u64 {
        self.host_ring_bytes() + self.gpu_ring_bytes()
    }
}

fn cast_of(tensor: &TensorInfo, dtype: Option<Dtype>) -> Option<Cast> {
    dtype.and_then(|to| Cast::new(tensor.dtype(), to))
}

fn delivered_bytes_of(tensor: &TensorInfo, dtype: Option<Dtype>) -> u64 {
    let cast = cast_of(tensor, dtype);
    cast.map_or(tensor.len_bytes(), |cast| cast.target_bytes(tensor.len_bytes()))
}

/// The devices that the tensors go to by `map`, and of each tensor the index of its device.
fn assign(
    checkpoint: &Checkpoint,
    tensors: &[u32],
    map: &DeviceMap,
) -> Result<(Vec<Device>, Vec<u8>)> {
    let mut devices = Vec::new();
    let device_of = |&index: &u32| map.device_of(checkpoint.tensors()[index as usize].name());
    let destinations =
        tensors.iter().map(|index| destination_among(&mut devices, device_of(index)));
    let destinations = destinations.collect::<Result<_>>()?;
    Ok((devices, destinations))
}

/// The index of `device` among `devices`; it is added if it is not there.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for more devices than any machine has.
pub(crate) fn destination_among(devices: &mut Vec<Device>, device: Device) -> Result<u8> {
    let destination = devices.iter().position(|&known| known == device).unwrap_or(devices.len());
    if destination == devices.len() {
        devices.push(device);
    }
    u8::try_from(destination)
        .map_err(|_| Error::new(ErrorKind::Unsupported, "a load may have at most 256 devices"))
}

fn largest_block_bytes(checkpoint: &Checkpoint) -> usize {
    let blocks = checkpoint.shards().iter().map(|shard| shard.source().block_bytes());
    blocks.fold(PAGE_BYTES, usize::max)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod pieces_tests;
