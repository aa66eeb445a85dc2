//! Gathering tensors into extents.

use crate::checkpoint::{Checkpoint, TensorInfo};
use std::ops::Range;

/// A contiguous byte range of one shard that holds whole tensors and fills one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    shard: u32,
    first_tensor: u32,
    tensor_count: u32,
    offset_bytes: u64,
    len_bytes: u64,
}

impl Extent {
    /// The shard it lies in.
    pub fn shard(&self) -> usize {
        self.shard as usize
    }

    /// Its tensors, as a range of the plan's list.
    pub(super) fn tensors(&self) -> Range<usize> {
        let first = self.first_tensor as usize;
        first..first + self.tensor_count as usize
    }

    /// Where its first byte lies in the shard.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// How many bytes it has; 0 when all its tensors are empty.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Where its slot begins in the shard: the offset, rounded down to the source's block.
    pub fn slot_offset_bytes(&self, block_bytes: usize) -> u64 {
        self.offset_bytes / block_bytes as u64 * block_bytes as u64
    }

    /// How long its slot is: from there to its end, rounded up to the block.
    pub fn slot_len_bytes(&self, block_bytes: usize) -> u64 {
        let end = self.offset_bytes + self.len_bytes;
        end.next_multiple_of(block_bytes as u64) - self.slot_offset_bytes(block_bytes)
    }

    /// The memory its slot takes from a ring of blocks of `ring_block_bytes`.
    pub(super) fn slot_bytes(&self, checkpoint: &Checkpoint, ring_block_bytes: usize) -> u64 {
        if self.len_bytes == 0 {
            return 0;
        }
        let block = checkpoint.shards()[self.shard()].source().block_bytes();
        self.slot_len_bytes(block).next_multiple_of(ring_block_bytes as u64)
    }

    /// Whether `tensor` continues this extent without a gap and without making it too long.
    fn takes(&self, tensor: &TensorInfo, extent_bytes: u64) -> bool {
        let adjacent = self.offset_bytes + self.len_bytes == tensor.offset_bytes();
        let len = self.len_bytes + tensor.len_bytes();
        self.shard() == tensor.shard()
            && adjacent
            && (len <= extent_bytes || tensor.len_bytes() == 0)
    }
}

/// Gathers `tensors` (indices, by shard and offset) into extents of about `extent_bytes`.
pub(super) fn gather(checkpoint: &Checkpoint, tensors: &[u32], extent_bytes: u64) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (position, &index) in tensors.iter().enumerate() {
        let tensor = &checkpoint.tensors()[index as usize];
        match extents.last_mut() {
            Some(extent) if extent.takes(tensor, extent_bytes) => {
                extent.len_bytes += tensor.len_bytes();
                extent.tensor_count += 1;
            }
            _ => extents.push(Extent {
                shard: tensor.shard() as u32,
                first_tensor: position as u32,
                tensor_count: 1,
                offset_bytes: tensor.offset_bytes(),
                len_bytes: tensor.len_bytes(),
            }),
        }
    }
    extents.shrink_to_fit();
    extents
}
