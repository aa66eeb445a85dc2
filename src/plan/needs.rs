//! Counts the memory that the tensors of a plan need, and makes the extents that fit it.

use super::extent::{Extent, ExtentShape, Gather};
use super::parts::TensorPart;
use super::sizes::{LoadSizes, SlotSizes};
use super::tensor_sizes::TensorSizes;
use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use crate::options::Device;
use crate::ring::PAGE_BYTES;

/// The tensors of a plan, and what is done with them.
pub(super) struct Needs<'a> {
    pub checkpoint: &'a Checkpoint,
    /// Indices into the checkpoint's tensors.
    pub tensors: &'a [u32],
    /// The parts of the tensors to load; empty if all of them are whole.
    pub parts: &'a [Option<TensorPart>],
    pub devices: &'a [Device],
    /// The device of each tensor, as an index.
    pub destinations: &'a [u8],
    pub dtype: Option<Dtype>,
}

/// The bytes of the tensors of a plan.
#[derive(Default)]
pub(super) struct NeededBytes {
    pub sizes: TensorSizes,
    /// As stored.
    pub total: u64,
    /// After casting.
    pub delivered: u64,
}

/// The slots of the extents of a plan, by the rings that they are in.
#[derive(Default)]
struct NeededSlots {
    host: SlotSizes,
    gpus: SlotSizes,
    gathered: SlotSizes,
}

impl Needs<'_> {
    /// The largest block of the sources, and at least a page.
    fn block_bytes(&self) -> usize {
        let blocks = self.checkpoint.shards().iter().map(|shard| shard.source().block_bytes());
        blocks.fold(PAGE_BYTES, usize::max)
    }

    fn tensor(&self, position: usize) -> &TensorInfo {
        &self.checkpoint.tensors()[self.tensors[position] as usize]
    }

    fn part(&self, position: usize) -> Option<&TensorPart> {
        self.parts.get(position)?.as_ref()
    }

    /// The bytes of the tensor at `position` as stored, and after its cast, if it is cast.
    fn bytes(&self, position: usize) -> (u64, Option<u64>) {
        let info = self.tensor(position);
        let bytes = self.part(position).map_or(info.len_bytes(), TensorPart::len_bytes);
        (bytes, cast_of(info, self.dtype).map(|cast| cast.target_bytes(bytes)))
    }

    /// The bytes of all tensors.
    pub fn bytes_of_all(&self) -> NeededBytes {
        let mut needed = NeededBytes::default();
        let sizes = &mut needed.sizes;
        sizes.block_bytes = self.block_bytes() as u64;
        sizes.is_remote = self.checkpoint.shards().iter().any(|shard| shard.source().is_remote());
        for (position, &destination) in self.destinations.iter().enumerate() {
            let (bytes, cast_bytes) = self.bytes(position);
            needed.total += bytes;
            needed.delivered += cast_bytes.unwrap_or(bytes);
            if !self.devices[usize::from(destination)].is_host() {
                sizes.device_bytes += bytes;
                continue;
            }
            let copied_bytes = cast_bytes.unwrap_or(bytes);
            let slots_bytes = match self.part(position).filter(|part| part.has_gaps()) {
                // It is copied, and cast, on its way from another ring.
                Some(part) if part.is_gathered() => copied_bytes,
                Some(part) => part.range_bytes() + copied_bytes,
                None => bytes + cast_bytes.unwrap_or(0),
            };
            let is_gathered = self.part(position).is_some_and(TensorPart::is_gathered);
            sizes.gathered_bytes += if is_gathered { slots_bytes } else { 0 };
            if slots_bytes > sizes.host_largest_bytes {
                sizes.host_largest_bytes = slots_bytes;
                sizes.host_largest_cast_bytes =
                    if is_gathered { 0 } else { cast_bytes.unwrap_or(0) };
            }
            sizes.host_bytes += slots_bytes;
        }
        needed
    }

    /// The extents of all tensors in a load of these `sizes`, and the sizes with the rings for them.
    pub fn extents(&self, sizes: LoadSizes) -> (Vec<Extent>, LoadSizes) {
        let shape = |device: &Device| match device {
            Device::Host => ExtentShape::Whole(sizes.extent_bytes),
            Device::Cuda(_) => ExtentShape::Pieces(sizes.piece_bytes),
        };
        let gather = Gather {
            checkpoint: self.checkpoint,
            tensors: self.tensors,
            destinations: self.destinations,
            parts: self.parts,
            gather_bytes: sizes.gather_bytes,
            shapes: &self.devices.iter().map(shape).collect::<Vec<_>>(),
            dtype: self.dtype,
        };
        let extents = gather.extents();
        let slots = self.slots_of(&extents);
        let sizes = sizes.with_slots(slots.host, slots.gpus).with_gathered(slots.gathered);
        (extents, sizes)
    }

    fn slots_of(&self, extents: &[Extent]) -> NeededSlots {
        let block_bytes = self.block_bytes();
        let mut needed = NeededSlots::default();
        let mut last_gathered = None;
        for extent in extents {
            let slot_bytes = extent.slot_bytes(self.checkpoint, block_bytes);
            if !self.devices[extent.destination()].is_host() {
                needed.gpus.add(slot_bytes);
                continue;
            }
            if !extent.is_gathered() {
                needed.host.add(slot_bytes);
                continue;
            }
            needed.gathered.add(slot_bytes);
            let position = extent.positions().start;
            if last_gathered.replace(position) != Some(position) {
                let (bytes, cast_bytes) = self.bytes(position);
                let bytes = cast_bytes.unwrap_or(bytes);
                needed.host.add(bytes.next_multiple_of(block_bytes as u64));
            }
        }
        needed
    }
}

/// The cast of `tensor` to `dtype`, or `None` if it is not cast.
pub(super) fn cast_of(tensor: &TensorInfo, dtype: Option<Dtype>) -> Option<Cast> {
    dtype.and_then(|to| Cast::new(tensor.dtype(), to))
}
