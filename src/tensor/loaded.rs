//! From where a load puts bytes to the tensors that are made of them.

use super::Storage;
use crate::cast::Cast;
use crate::checkpoint::TensorInfo;
use crate::options::Device;
use std::ops::Range;
use std::sync::Arc;

/// Some of a plan's tensors, in place.
#[derive(Debug)]
pub(crate) struct LoadedTensors {
    /// Which, as a range of the plan's list.
    pub positions: Range<usize>,
    /// What they are views of.
    pub storage: Storage,
    /// Where in it each begins.
    pub starts: Offsets,
}

impl LoadedTensors {
    /// Tensors without bytes: they are in place as they are.
    pub fn empty(positions: Range<usize>, device: Device) -> Self {
        Self { positions, storage: Storage::empty(device), starts: Offsets::Zero }
    }
}

/// Where in their storage tensors begin.
#[derive(Debug, Clone)]
pub(crate) enum Offsets {
    /// The storage is a part of the shard, from this byte.
    Shard(u64),
    /// The storage is a part of the shard, from this byte, cast as a whole.
    Cast(u64, Cast),
    /// As listed, by position in the plan.
    Listed(Arc<[u64]>),
    /// Each has a storage of its own.
    Zero,
}

impl Offsets {
    /// Where the tensor at `position` of the plan begins.
    pub fn of(&self, position: usize, tensor: &TensorInfo) -> usize {
        let start = match self {
            // Empty tensors may stand anywhere, also where there is no storage.
            _ if tensor.len_bytes() == 0 => 0,
            Self::Shard(from) => tensor.offset_bytes() - from,
            Self::Cast(from, cast) => cast.target_bytes(tensor.offset_bytes() - from),
            Self::Listed(starts) => starts[position],
            Self::Zero => 0,
        };
        start as usize
    }
}
