//! The plan of a load: which bytes to read, in which order, into how much memory.
//!
//! ```text
//! tensors of a shard, by offset:   a  b  c  [ d (large) ]  e        (b is not selected)
//! extents:                        |a|    |c| |    d     | |e|
//! a slot (aligned to blocks):                [  .  d  .   ]   cut into reads of chunk_bytes
//! ```
//!
//! An [`Extent`] is a contiguous byte range of one shard that fills one slot. For the host it holds
//! whole tensors: neighbours are gathered until the extent is large enough, and a large tensor has an
//! extent of its own. Tensors for a GPU only pass through their slots, so their extents end where
//! reads are best aligned, also within tensors. Time and memory are linear in the number of tensors,
//! and an extent takes a few words.
//!
//! [`LoadSizes`] decides how large all of this is.

mod chunk;
mod extent;
mod runs;
mod select;
mod sizes;

pub use chunk::{Chunk, ChunkSize, chunk_ends, even_ends};
pub use extent::Extent;
pub(crate) use extent::{Span, pieces_of};
pub use runs::Pick;
pub(crate) use runs::{RunRead, Runs};
pub use select::Selection;
pub(crate) use select::position;
pub(crate) use sizes::{LoadSizes, ReadOptions, ReadSizes, SlotSizes, TensorSizes};

use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Device, DeviceMap, MemoryLimit};
use crate::ring::PAGE_BYTES;
use extent::{ExtentShape, Gather};
use std::sync::Arc;

/// The plan of a load: its tensors, their devices, and the extents to read.
#[derive(Debug)]
pub struct Plan {
    checkpoint: Arc<Checkpoint>,
    /// Indices into the checkpoint's tensors. Extents refer to ranges of this list.
    tensors: Vec<u32>,
    /// The devices that tensors go to. Extents refer to them by index.
    devices: Vec<Device>,
    extents: Arc<[Extent]>,
    sizes: LoadSizes,
    total_bytes: u64,
    dtype: Option<Dtype>,
    delivered_bytes: u64,
}

impl Plan {
    /// Plans a load of the tensors in `selection` to the devices that `map` assigns to them. Floats
    /// are cast to `dtype`, if it is set.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] when the limit is below the largest tensor of the host,
    /// [`ErrorKind::InvalidInput`] for a glob that does not parse, [`ErrorKind::NotFound`] when no
    /// tensor matches a glob or has a name of the selection.
    pub fn new(
        checkpoint: Arc<Checkpoint>,
        limit: MemoryLimit,
        selection: &Selection,
        map: &DeviceMap,
        dtype: Option<Dtype>,
    ) -> Result<Self> {
        let tensors = selection.indices(&checkpoint)?;
        let (devices, destinations) = assign(&checkpoint, &tensors, map)?;
        let is_host = |destination: u8| devices[usize::from(destination)].is_host();
        let blocks = checkpoint.shards().iter().map(|shard| shard.source().block_bytes());
        let block_bytes = blocks.fold(PAGE_BYTES, usize::max);
        let mut needed = TensorSizes { block_bytes: block_bytes as u64, ..TensorSizes::default() };
        let (mut total_bytes, mut delivered_bytes) = (0, 0);
        for (&index, &destination) in tensors.iter().zip(&destinations) {
            let info = &checkpoint.tensors()[index as usize];
            let bytes = info.len_bytes();
            let cast_bytes = cast_of(info, dtype).map(|cast| cast.target_bytes(bytes));
            total_bytes += bytes;
            delivered_bytes += cast_bytes.unwrap_or(bytes);
            if is_host(destination) {
                let cast_bytes = cast_bytes.unwrap_or(0);
                if bytes + cast_bytes > needed.host_largest_bytes {
                    needed.host_largest_bytes = bytes + cast_bytes;
                    needed.host_largest_cast_bytes = cast_bytes;
                }
                needed.host_bytes += bytes + cast_bytes;
            } else {
                needed.device_bytes += bytes;
            }
        }
        let sizes = LoadSizes::new(limit, needed)?;
        let shape = |device: &Device| match device {
            Device::Host => ExtentShape::Whole(sizes.extent_bytes),
            Device::Cuda(_) => ExtentShape::Pieces(sizes.piece_bytes),
        };
        let gather = Gather {
            checkpoint: &checkpoint,
            tensors: &tensors,
            destinations: &destinations,
            shapes: &devices.iter().map(shape).collect::<Vec<_>>(),
            dtype,
        };
        let extents = gather.extents();
        let (mut host, mut gpus) = (SlotSizes::default(), SlotSizes::default());
        for extent in &extents {
            let slots = if devices[extent.destination()].is_host() { &mut host } else { &mut gpus };
            let slot_bytes = extent.slot_bytes(&checkpoint, block_bytes);
            slots.total_bytes += slot_bytes;
            slots.largest_bytes = slots.largest_bytes.max(slot_bytes);
        }
        Ok(Self {
            tensors,
            devices,
            extents: extents.into(),
            sizes: sizes.with_slots(host, gpus),
            total_bytes,
            dtype,
            delivered_bytes,
            checkpoint,
        })
    }

    /// The checkpoint that the plan was made for.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The extents, in the order of the checkpoint.
    pub fn extents(&self) -> &Arc<[Extent]> {
        &self.extents
    }

    /// The devices that tensors go to. Extents refer to them by index.
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

    /// How many tensors are loaded.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The sum of the loaded tensors' bytes, as stored.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The sum of the loaded tensors' bytes, after casting.
    pub fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// The cast of `tensor`, or `None` if it is not cast.
    pub(crate) fn cast_of(&self, tensor: &TensorInfo) -> Option<Cast> {
        cast_of(tensor, self.dtype)
    }

    /// The type that floats are cast to, or `None`.
    pub(crate) fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// The sizes of the load's memory and extents.
    pub(crate) fn sizes(&self) -> &LoadSizes {
        &self.sizes
    }
}

fn cast_of(tensor: &TensorInfo, dtype: Option<Dtype>) -> Option<Cast> {
    dtype.and_then(|to| Cast::new(tensor.dtype(), to))
}

/// The devices that `map` assigns the tensors to, and the index of each tensor's device.
fn assign(
    checkpoint: &Checkpoint,
    tensors: &[u32],
    map: &DeviceMap,
) -> Result<(Vec<Device>, Vec<u8>)> {
    let mut devices = Vec::new();
    let device_of = |&index: &u32| map.device_of(checkpoint.tensors()[index as usize].name());
    let indices = tensors.iter().map(|index| destination_among(&mut devices, device_of(index)));
    let indices = indices.collect::<Result<_>>()?;
    Ok((devices, indices))
}

/// The index of `device` among `devices`, to which it is added if it is missing.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for more than 256 devices.
pub(crate) fn destination_among(devices: &mut Vec<Device>, device: Device) -> Result<u8> {
    let index = devices.iter().position(|&known| known == device).unwrap_or(devices.len());
    if index == devices.len() {
        devices.push(device);
    }
    u8::try_from(index)
        .map_err(|_| Error::new(ErrorKind::Unsupported, "a load may have at most 256 devices"))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod pieces_tests;
