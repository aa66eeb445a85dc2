//! The tensors of a plan that is being made, and what is loaded of each: all of it or a part, as it is
//! stored or cast.

use super::parts::TensorPart;
use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;

/// What is loaded. Tensors are numbered by their positions in `tensors`.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub checkpoint: &'a Checkpoint,
    /// Indices into the checkpoint's tensors, ordered by shard and offset.
    pub tensors: &'a [u32],
    /// The parts of the tensors to load; empty if all of them are whole.
    pub parts: &'a [Option<TensorPart>],
    /// The device of each tensor, as an index.
    pub destinations: &'a [u8],
    /// The type that floats are cast to, or `None`.
    pub dtype: Option<Dtype>,
}

impl<'a> Wanted<'a> {
    pub fn tensor(&self, position: usize) -> &'a TensorInfo {
        &self.checkpoint.tensors()[self.tensors[position] as usize]
    }

    pub fn part(&self, position: usize) -> Option<&'a TensorPart> {
        self.parts.get(position)?.as_ref()
    }

    /// The bytes of the tensor at `position` as stored, and after its cast, if it is cast.
    pub fn bytes(&self, position: usize) -> (u64, Option<u64>) {
        let info = self.tensor(position);
        let bytes = self.part(position).map_or(info.len_bytes(), TensorPart::len_bytes);
        (bytes, cast_of(info, self.dtype).map(|cast| cast.target_bytes(bytes)))
    }

    /// The bytes of the tensor at `position` in memory, after its cast.
    pub fn delivered_bytes(&self, position: usize) -> u64 {
        let (bytes, cast_bytes) = self.bytes(position);
        cast_bytes.unwrap_or(bytes)
    }
}

/// The cast of `tensor` to `dtype`, or `None` if it is not cast.
pub(super) fn cast_of(tensor: &TensorInfo, dtype: Option<Dtype>) -> Option<Cast> {
    dtype.and_then(|to| Cast::new(tensor.dtype(), to))
}
