//! A tensor as a view of a storage.

use super::elements::{Element, elements_of};
use super::storage::Storage;
use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::options::Device;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// A loaded tensor: a read-only view of its [`Storage`]. Cheap to clone. The bytes stay valid as long
/// as any clone lives, also after the load has ended. They do not change unless the tensor is
/// [exported as writable](Self::export_writable), or the mapped file
/// ([`ReadPath::Mapped`](crate::ReadPath::Mapped), [`Loader::immutable`](crate::Loader::immutable)) does.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let model = ringload::Loader::new().load(&path)?;
/// let norm = model.get("norm").ok_or("no norm")?.clone();
/// drop(model);
/// assert_eq!((norm.name(), norm.shape(), norm.bytes().len()), ("norm", &[2, 3][..], 24));
/// assert_eq!(norm.as_slice::<f32>()?, [0.0; 6]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tensor {
    checkpoint: Arc<Checkpoint>,
    index: u32,
    storage: Storage,
    pub(super) start: usize,
    /// The type that the elements were cast to, or `None`.
    cast_to: Option<Dtype>,
    /// The shape, if this is a part of the checkpoint's tensor.
    part: Option<Arc<[usize]>>,
}

impl Tensor {
    /// Tensor `index` of `checkpoint`, whose bytes begin at `start` of `storage`.
    pub(crate) fn new(
        checkpoint: Arc<Checkpoint>,
        index: u32,
        storage: Storage,
        start: usize,
    ) -> Self {
        Self { checkpoint, index, storage, start, cast_to: None, part: None }
    }

    /// This tensor with the type that results from `cast`, which was applied to its bytes.
    pub(crate) fn cast(self, cast: Option<Cast>) -> Self {
        Self { cast_to: cast.map(|cast| cast.to()), ..self }
    }

    /// This tensor as a part of the checkpoint's tensor with the shape `part`; unchanged for
    /// `None`.
    pub(crate) fn of_shape(self, part: Option<Arc<[usize]>>) -> Self {
        Self { part, ..self }
    }

    /// The checkpoint's description of the tensor, with the stored type, shape and length.
    pub fn info(&self) -> &TensorInfo {
        &self.checkpoint.tensors()[self.index as usize]
    }

    /// The tensor's index in [`Checkpoint::tensors`].
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        self.info().name()
    }

    /// The type of the elements: the stored one, or the one that they were cast to
    /// ([`Loader::dtype`](crate::Loader::dtype)).
    pub fn dtype(&self) -> Dtype {
        self.cast_to.unwrap_or_else(|| self.info().dtype())
    }

    /// The dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        self.part.as_deref().unwrap_or_else(|| self.info().shape())
    }

    /// The dimensions of the tensor in the file, of which this may be a part
    /// ([`Loader::slices`](crate::Loader::slices)).
    pub fn full_shape(&self) -> &[usize] {
        self.info().shape()
    }

    /// The length in bytes.
    pub fn len_bytes(&self) -> usize {
        let info = self.info();
        let stored = match &self.part {
            // The bits of the whole tensor are counted by 64 bits, and so are those of its part.
            Some(part) => part.iter().product::<usize>() as u64 * info.dtype().bitsize() as u64 / 8,
            None => info.len_bytes(),
        };
        let cast = self.cast_to.and_then(|to| Cast::new(info.dtype(), to));
        cast.map_or(stored, |cast| cast.target_bytes(stored)) as usize
    }

    /// The device that has the tensor's memory.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// The memory that the tensor is a view of.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The address of the first byte in the address space of the tensor's device.
    ///
    /// On a GPU it is a multiple of 256. In host memory it is congruent to the tensor's offset in the
    /// file modulo 4096, so it is aligned for its dtype exactly if the offset is; after a cast it is
    /// always aligned for its dtype.
    pub fn address(&self) -> u64 {
        self.storage.address() + self.start as u64
    }

    /// The elements, row-major and little-endian.
    ///
    /// # Panics
    /// When the tensor is on a GPU. [`host_bytes`](Self::host_bytes) returns `None` instead, and
    /// [`to_vec`](Self::to_vec) copies the bytes to host memory.
    pub fn bytes(&self) -> &[u8] {
        match self.host_bytes() {
            Some(bytes) => bytes,
            None => panic!("{} is on {}, not in host memory", self.name(), self.device()),
        }
    }

    /// The elements, as [`bytes`](Self::bytes) returns them; `None` when the tensor is on a GPU.
    pub fn host_bytes(&self) -> Option<&[u8]> {
        self.storage.bytes(self.start..self.start + self.len_bytes())
    }

    /// The elements as a slice of numbers. BF16 and F16 are `u16` here, BOOL and floats of 8 bits are
    /// `u8`: their bits.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `T` is not the type of the elements, if
    /// they are on a GPU, or if they are not aligned for `T`: in a file they need not be. After a
    /// cast they always are.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        let Some(bytes) = self.host_bytes() else {
            let why = format!("{} is on {}, not in host memory", self.name(), self.device());
            return Err(Error::invalid_input(why));
        };
        elements_of(bytes, self.dtype())
            .map_err(|why| Error::invalid_input(format!("tensor {:?}: {why}", self.name())))
    }

    /// A copy of the elements in host memory.
    ///
    /// # Errors
    /// The errors of the GPU's driver.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len_bytes()];
        self.copy_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Copies the elements to `into`.
    ///
    /// # Errors
    /// The errors of the GPU's driver.
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

/// The bytes, as [`Tensor::bytes`] returns them; panics when the tensor is on a GPU.
impl AsRef<[u8]> for Tensor {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// The bytes without a copy: they keep the tensor's memory alive. Panics when the tensor is on a GPU.
impl From<Tensor> for Bytes {
    fn from(tensor: Tensor) -> Self {
        Self::from_owner(tensor)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {:?}, {:?})", self.name(), self.dtype(), self.shape())
    }
}
