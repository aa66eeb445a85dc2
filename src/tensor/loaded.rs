//! Loaded tensors that share a storage, before they become [`Tensor`](super::Tensor)s.

use super::Storage;
use crate::cast::Cast;
use crate::options::Device;
use crate::plan::Span;
use std::ops::Range;
use std::sync::Arc;

/// Consecutive tensors of a plan that are loaded.
#[derive(Debug)]
pub(crate) struct LoadedTensors {
    /// The positions of the tensors in the plan's list.
    pub positions: Range<usize>,
    /// The storage that the tensors are views of.
    pub storage: Storage,
    /// The offset of each tensor in the storage.
    pub starts: Offsets,
}

impl LoadedTensors {
    /// Tensors without bytes, which need no reads.
    pub fn empty(positions: Range<usize>, device: Device) -> Self {
        Self { positions, storage: Storage::empty(device), starts: Offsets::Zero }
    }
}

/// The offsets of tensors in their storage.
#[derive(Debug, Clone)]
pub(crate) enum Offsets {
    /// The storage is a range of the shard that begins at this offset.
    Shard(u64),
    /// The storage is a range of the shard that begins at this offset, cast as a whole.
    Cast(u64, Cast),
    /// The offsets by position in the plan.
    Listed(Arc<[u64]>),
    /// The offsets of the tensors from this position of the plan on.
    Packed(usize, Arc<[u64]>),
    /// Each tensor has its own storage.
    Zero,
}

impl Offsets {
    /// The offset of the tensor at `position` of the plan, whose bytes are those of `span`.
    pub fn of(&self, position: usize, span: &Span) -> usize {
        let start = match self {
            // Empty tensors may be anywhere in the shard, also outside of the storage.
            _ if span.len_bytes == 0 => 0,
            Self::Shard(from) => span.offset_bytes - from,
            Self::Cast(from, cast) => cast.target_bytes(span.offset_bytes - from),
            Self::Listed(starts) => starts[position],
            Self::Packed(first, starts) => starts[position - first],
            Self::Zero => 0,
        };
        start as usize
    }
}
