//! Tensors: named, typed, shaped views that keep their storage alive.

mod storage;

pub use storage::Storage;

use crate::checkpoint::{Checkpoint, TensorInfo};
use safetensors::Dtype;
use std::fmt;
use std::sync::Arc;

/// A loaded tensor: a read-only view of its [`Storage`]. Cheap to clone; the bytes stay valid and
/// unchanged as long as any clone lives, whatever happens to the load it came from.
#[derive(Clone)]
pub struct Tensor {
    checkpoint: Arc<Checkpoint>,
    index: u32,
    storage: Storage,
    start: usize,
}

impl Tensor {
    /// Tensor `index` of `checkpoint`, its bytes at `start` of `storage`.
    pub(crate) fn new(
        checkpoint: Arc<Checkpoint>,
        index: u32,
        storage: Storage,
        start: usize,
    ) -> Self {
        Self { checkpoint, index, storage, start }
    }

    /// What the checkpoint says about it.
    pub fn info(&self) -> &TensorInfo {
        &self.checkpoint.tensors()[self.index as usize]
    }

    /// Its index in [`Checkpoint::tensors`].
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.info().name()
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.info().dtype()
    }

    /// Its dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        self.info().shape()
    }

    /// How many bytes it has.
    pub fn len_bytes(&self) -> usize {
        self.info().len_bytes() as usize
    }

    /// Its elements, row-major and little-endian as in the file.
    ///
    /// The address is congruent to the tensor's place in the file modulo 4096, so it is aligned for
    /// its dtype exactly if the file aligns it.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.start..][..self.len_bytes()]
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {:?}, {:?})", self.name(), self.dtype(), self.shape())
    }
}
