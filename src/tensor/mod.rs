//! Tensors: named, typed, shaped views that keep their storage alive.

#[allow(unsafe_code)]
mod aligned;
mod buffer;
#[allow(unsafe_code)]
pub mod dlpack;
mod loaded;
mod storage;

pub(crate) use buffer::TensorBuffer;
pub(crate) use loaded::{LoadedTensors, Offsets};
pub(crate) use storage::GpuMemory;
pub use storage::Storage;

use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::Result;
use crate::options::Device;
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
    /// What it was cast to.
    cast_to: Option<Dtype>,
    /// Where it is a part of what the checkpoint has.
    part: Option<Arc<[usize]>>,
}

impl Tensor {
    /// Tensor `index` of `checkpoint`, its bytes at `start` of `storage`.
    pub(crate) fn new(
        checkpoint: Arc<Checkpoint>,
        index: u32,
        storage: Storage,
        start: usize,
    ) -> Self {
        Self { checkpoint, index, storage, start, cast_to: None, part: None }
    }

    /// The same, of what was cast on the way as `cast` says.
    pub(crate) fn cast(self, cast: Option<Cast>) -> Self {
        Self { cast_to: cast.map(|cast| cast.to()), ..self }
    }

    /// The same, of a part of what the checkpoint has, if its shape is given.
    pub(crate) fn of_shape(self, part: Option<Arc<[usize]>>) -> Self {
        Self { part, ..self }
    }

    /// What the checkpoint says about it: its type, shape and length there are
    /// those as stored.
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

    /// The type of its elements: the file's, or what they were cast to
    /// ([`Loader::dtype`](crate::Loader::dtype)).
    pub fn dtype(&self) -> Dtype {
        self.cast_to.unwrap_or_else(|| self.info().dtype())
    }

    /// Its dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        self.part.as_deref().unwrap_or_else(|| self.info().shape())
    }

    /// How many bytes it has.
    pub fn len_bytes(&self) -> usize {
        let info = self.info();
        let stored = match &self.part {
            // A part of what fits into 64 bits.
            Some(part) => {
                part.iter().product::<usize>() as u64 * (info.dtype().bitsize() as u64 / 8)
            }
            None => info.len_bytes(),
        };
        let cast = self.cast_to.and_then(|to| Cast::new(info.dtype(), to));
        cast.map_or(stored, |cast| cast.target_bytes(stored)) as usize
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// What it is a view of.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The address of its first byte, in its device's address space.
    ///
    /// On a GPU it is a multiple of 256. In host memory it is congruent to the tensor's place in the
    /// file modulo 4096, so it is aligned for its dtype exactly if the file aligns it; where it was cast, it
    /// is aligned for its dtype.
    pub fn address(&self) -> u64 {
        self.storage.address() + self.start as u64
    }

    /// Its elements, row-major and little-endian.
    ///
    /// # Panics
    /// When it is on a GPU: [`host_bytes`](Self::host_bytes) says so in its type,
    /// [`to_vec`](Self::to_vec) brings the bytes back.
    pub fn bytes(&self) -> &[u8] {
        match self.host_bytes() {
            Some(bytes) => bytes,
            None => panic!("{} is on {}, not in host memory", self.name(), self.device()),
        }
    }

    /// As [`bytes`](Self::bytes); `None` when it is on a GPU.
    pub fn host_bytes(&self) -> Option<&[u8]> {
        self.storage.bytes(self.start..self.start + self.len_bytes())
    }

    /// A copy of its elements in host memory, wherever it is.
    ///
    /// # Errors
    /// What the GPU's driver answers.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len_bytes()];
        self.copy_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Copies its elements to host memory, wherever it is.
    ///
    /// # Errors
    /// What the GPU's driver answers.
    ///
    /// # Panics
    /// When `into` is not as long as the tensor.
    pub fn copy_to(&self, into: &mut [u8]) -> Result<()> {
        assert_eq!(into.len(), self.len_bytes(), "{} is of another length", self.name());
        match self.host_bytes() {
            Some(bytes) => into.copy_from_slice(bytes),
            None => self.storage.copy_out(self.start, into)?,
        }
        Ok(())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {:?}, {:?})", self.name(), self.dtype(), self.shape())
    }
}
