//! Counts the memory that the tensors of a plan need, and makes the extents that fit it.

use super::extent::{Extent, ExtentShape, Gather};
use super::sizes::{LoadSizes, SlotSizes};
use super::tensor_sizes::TensorSizes;
use super::wanted::Wanted;
use crate::options::Device;
use crate::ring::PAGE_BYTES;

/// The tensors of a plan, and what is done with them.
pub(super) struct Needs<'a> {
    pub wanted: Wanted<'a>,
    pub devices: &'a [Device],
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
        let blocks =
            self.wanted.checkpoint.shards().iter().map(|shard| shard.source().block_bytes());
        blocks.fold(PAGE_BYTES, usize::max)
    }

    /// The bytes of all tensors.
    pub fn bytes_of_all(&self) -> NeededBytes {
        let mut needed = NeededBytes::default();
        let sizes = &mut needed.sizes;
        sizes.block_bytes = self.block_bytes() as u64;
        sizes.is_remote =
            self.wanted.checkpoint.shards().iter().any(|shard| shard.source().is_remote());
        for (position, &destination) in self.wanted.destinations.iter().enumerate() {
            let (bytes, cast_bytes) = self.wanted.bytes(position);
            let delivered = cast_bytes.unwrap_or(bytes);
            needed.total += bytes;
            needed.delivered += delivered;
            if !self.devices[usize::from(destination)].is_host() {
                sizes.device_bytes += bytes;
                continue;
            }
            let cast_bytes = cast_bytes.unwrap_or(0);
            let (slots_bytes, cast_bytes) = match self.wanted.part(position) {
                // It is copied, and cast, on its way from another ring.
                Some(part) if part.is_gathered() => {
                    sizes.gathered_bytes += delivered;
                    (delivered, 0)
                }
                Some(part) if part.has_gaps() => (part.range_bytes() + delivered, cast_bytes),
                _ => (bytes + cast_bytes, cast_bytes),
            };
            if slots_bytes > sizes.host_largest_bytes {
                sizes.host_largest_bytes = slots_bytes;
                sizes.host_largest_cast_bytes = cast_bytes;
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
            wanted: self.wanted,
            gather_bytes: sizes.gather_bytes,
            shapes: &self.devices.iter().map(shape).collect::<Vec<_>>(),
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
            let slot_bytes = extent.slot_bytes(self.wanted.checkpoint, block_bytes);
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
                let bytes = self.wanted.delivered_bytes(position);
                needed.host.add(bytes.next_multiple_of(block_bytes as u64));
            }
        }
        needed
    }
}
