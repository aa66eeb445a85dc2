//! The memory that tensors are views of.

use super::aligned::Aligned;
use crate::error::Result;
use crate::options::Device;
use crate::ring::{FullSlot, Mapping};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An allocation that tensors are views of. It lives as long as any of them; clones share it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let model = ringload::Loader::new().load(&path)?;
/// let norm = model.get("norm").ok_or("no norm")?;
/// let storage = norm.storage().clone(); // keeps the memory, without the tensor
/// println!("{} bytes at {:#x} of {}", storage.len_bytes(), storage.address(), storage.device());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Storage {
    kind: StorageKind,
}

#[derive(Clone)]
enum StorageKind {
    Slot(FullSlot),
    Mapped(Arc<Mapping>, Range<usize>),
    /// The same, of a mapping that may be written to.
    Private(Arc<Mapping>, Range<usize>),
    Gpu(Arc<dyn GpuMemory>),
    Own(Arc<Aligned>),
    Empty(Device),
}

/// GPU memory, freed when it is dropped.
pub(crate) trait GpuMemory: Send + Sync {
    /// The GPU that has the memory.
    fn device(&self) -> Device;

    /// The address of the first byte in the GPU's address space.
    fn address(&self) -> u64;

    /// The length in bytes.
    fn len_bytes(&self) -> usize;

    /// Copies `into.len()` bytes from `start` to the host, and waits for the copy. The range lies
    /// within the memory.
    ///
    /// # Errors
    /// The errors of the driver.
    fn copy_out(&self, start: usize, into: &mut [u8]) -> Result<()>;
}

impl Storage {
    /// A slot of the ring, which is freed when the last clone is dropped.
    pub(crate) fn from_slot(slot: FullSlot) -> Self {
        Self { kind: StorageKind::Slot(slot) }
    }

    /// A range of a mapped file.
    pub(crate) fn mapped(mapping: Arc<Mapping>, range: Range<usize>) -> Self {
        Self { kind: StorageKind::Mapped(mapping, range) }
    }

    /// A range of a file that is mapped so that the memory may be written to.
    pub(crate) fn private(mapping: Arc<Mapping>, range: Range<usize>) -> Self {
        Self { kind: StorageKind::Private(mapping, range) }
    }

    /// GPU memory.
    pub(crate) fn gpu(memory: Arc<dyn GpuMemory>) -> Self {
        Self { kind: StorageKind::Gpu(memory) }
    }

    /// Separate host memory.
    pub(crate) fn own(bytes: Aligned) -> Self {
        Self { kind: StorageKind::Own(Arc::new(bytes)) }
    }

    /// A storage without bytes, for extents whose tensors are all empty.
    pub(crate) fn empty(device: Device) -> Self {
        Self { kind: StorageKind::Empty(device) }
    }

    /// The device that has the memory.
    pub fn device(&self) -> Device {
        match &self.kind {
            StorageKind::Slot(_)
            | StorageKind::Mapped(..)
            | StorageKind::Private(..)
            | StorageKind::Own(_) => Device::Host,
            StorageKind::Gpu(memory) => memory.device(),
            StorageKind::Empty(device) => *device,
        }
    }

    /// The length in bytes.
    pub fn len_bytes(&self) -> usize {
        match &self.kind {
            StorageKind::Slot(slot) => slot.len(),
            StorageKind::Mapped(_, range) | StorageKind::Private(_, range) => range.len(),
            StorageKind::Gpu(memory) => memory.len_bytes(),
            StorageKind::Own(bytes) => bytes.len(),
            StorageKind::Empty(_) => 0,
        }
    }

    /// The bytes in `range`; `None` on a GPU.
    ///
    /// # Panics
    /// When the storage has fewer bytes.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        match &self.kind {
            StorageKind::Slot(slot) => Some(slot.bytes(range)),
            StorageKind::Mapped(mapping, all) | StorageKind::Private(mapping, all) => {
                Some(&mapping.file_bytes(all.clone())[range])
            }
            StorageKind::Own(bytes) => Some(bytes.bytes(range)),
            StorageKind::Empty(_) => Some(&[][range]),
            StorageKind::Gpu(_) => None,
        }
    }

    /// The address of the first byte in its device's address space.
    pub fn address(&self) -> u64 {
        match &self.kind {
            StorageKind::Gpu(memory) => memory.address(),
            _ => self.as_ptr() as u64,
        }
    }

    /// The address of the first byte in host memory; null on a GPU, and without bytes.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        match &self.kind {
            StorageKind::Slot(slot) => slot.as_ptr(),
            StorageKind::Mapped(mapping, range) | StorageKind::Private(mapping, range) => {
                mapping.file_bytes(range.clone()).as_ptr()
            }
            StorageKind::Own(bytes) => bytes.as_ptr(),
            StorageKind::Gpu(_) | StorageKind::Empty(_) => std::ptr::null(),
        }
    }

    /// Lends the memory to foreign code that may write to it. Waits until the cache does not borrow
    /// it.
    pub(crate) fn lend(&self) {
        if let StorageKind::Slot(slot) = &self.kind {
            slot.lend();
        }
    }

    /// Whether [`lend`](Self::lend) has nothing to wait for.
    pub(crate) fn is_lent(&self) -> bool {
        !matches!(&self.kind, StorageKind::Slot(slot) if !slot.is_lent())
    }

    /// Whether the memory is read-only, because it consists of pages of a file.
    pub fn is_read_only(&self) -> bool {
        matches!(self.kind, StorageKind::Mapped(..))
    }

    /// Copies bytes from `start` to `into`. Foreign code may be writing to them meanwhile.
    ///
    /// # Errors
    /// The errors of the GPU's driver.
    ///
    /// # Panics
    /// When the storage has fewer bytes.
    pub(crate) fn copy_out(&self, start: usize, into: &mut [u8]) -> Result<()> {
        match &self.kind {
            StorageKind::Slot(slot) => slot.copy_to(start, into),
            StorageKind::Own(bytes) => bytes.copy_to(start, into),
            StorageKind::Private(mapping, range) => mapping.copy_to(range.start + start, into),
            StorageKind::Mapped(mapping, range) => {
                into.copy_from_slice(&mapping.file_bytes(range.clone())[start..][..into.len()]);
            }
            StorageKind::Gpu(memory) => {
                assert!(start + into.len() <= memory.len_bytes(), "beyond the storage's end");
                memory.copy_out(start, into)?;
            }
            StorageKind::Empty(_) => assert!(into.is_empty(), "beyond the storage's end"),
        }
        Ok(())
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            StorageKind::Slot(_) => "slot",
            StorageKind::Mapped(..) => "mapped file",
            StorageKind::Private(..) => "privately mapped file",
            StorageKind::Gpu(_) => "gpu",
            StorageKind::Own(_) => "own memory",
            StorageKind::Empty(_) => "empty",
        };
        write!(f, "Storage({kind} on {}, {} bytes)", self.device(), self.len_bytes())
    }
}
