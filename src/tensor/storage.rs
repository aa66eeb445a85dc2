//! What tensors are views of.

use super::aligned::Aligned;
use crate::error::Result;
use crate::options::Device;
use crate::ring::{FullSlot, Mapping};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An allocation that tensors are views of. It lives as long as any of them; clones share it.
#[derive(Clone)]
pub struct Storage {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Slot(FullSlot),
    Mapped(Arc<Mapping>, Range<usize>),
    Gpu(Arc<dyn GpuMemory>),
    Own(Arc<Aligned>),
    Empty(Device),
}

/// Memory of a GPU, freed when it is dropped.
pub(crate) trait GpuMemory: Send + Sync {
    /// The GPU.
    fn device(&self) -> Device;

    /// Where it begins, in the GPU's address space.
    fn address(&self) -> u64;

    /// Its length in bytes.
    fn len_bytes(&self) -> usize;

    /// Copies `into.len()` bytes from `start` to the host, and waits for them. The range lies within
    /// the memory.
    ///
    /// # Errors
    /// What the driver answers.
    fn copy_out(&self, start: usize, into: &mut [u8]) -> Result<()>;
}

impl Storage {
    /// A slot of the ring; it is free again when the last clone is dropped.
    pub(crate) fn from_slot(slot: FullSlot) -> Self {
        Self { kind: Kind::Slot(slot) }
    }

    /// A part of a mapped file.
    pub(crate) fn mapped(mapping: Arc<Mapping>, range: Range<usize>) -> Self {
        Self { kind: Kind::Mapped(mapping, range) }
    }

    /// Memory of a GPU.
    pub(crate) fn gpu(memory: Arc<dyn GpuMemory>) -> Self {
        Self { kind: Kind::Gpu(memory) }
    }

    /// Memory of its own.
    pub(crate) fn own(bytes: Aligned) -> Self {
        Self { kind: Kind::Own(Arc::new(bytes)) }
    }

    /// No bytes: for extents whose tensors are all empty.
    pub(crate) fn empty(device: Device) -> Self {
        Self { kind: Kind::Empty(device) }
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        match &self.kind {
            Kind::Slot(_) | Kind::Mapped(..) | Kind::Own(_) => Device::Host,
            Kind::Gpu(memory) => memory.device(),
            Kind::Empty(device) => *device,
        }
    }

    /// Its length in bytes.
    pub fn len_bytes(&self) -> usize {
        match &self.kind {
            Kind::Slot(slot) => slot.len(),
            Kind::Mapped(_, range) => range.len(),
            Kind::Gpu(memory) => memory.len_bytes(),
            Kind::Own(bytes) => bytes.len(),
            Kind::Empty(_) => 0,
        }
    }

    /// The bytes in `range`, and of no other tensor; `None` where they are on a GPU.
    ///
    /// # Panics
    /// When it has fewer bytes.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        match &self.kind {
            Kind::Slot(slot) => Some(slot.bytes(range)),
            Kind::Mapped(mapping, all) => Some(&mapping.file_bytes(all.clone())[range]),
            Kind::Own(bytes) => Some(bytes.bytes(range)),
            Kind::Empty(_) => Some(&[][range]),
            Kind::Gpu(_) => None,
        }
    }

    /// Where it begins, in its device's address space.
    pub fn address(&self) -> u64 {
        match &self.kind {
            Kind::Gpu(memory) => memory.address(),
            _ => self.as_ptr() as u64,
        }
    }

    /// Where it begins in host memory; null on a GPU, and where it has no bytes.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        match &self.kind {
            Kind::Slot(slot) => slot.as_ptr(),
            Kind::Mapped(mapping, range) => mapping.file_bytes(range.clone()).as_ptr(),
            Kind::Own(bytes) => bytes.as_ptr(),
            Kind::Gpu(_) | Kind::Empty(_) => std::ptr::null(),
        }
    }

    /// Lets foreign code write to it: waits until the cache does not borrow its bytes.
    pub(crate) fn lend(&self) {
        if let Kind::Slot(slot) = &self.kind {
            slot.lend();
        }
    }

    /// Whether [`lend`](Self::lend) has nothing to wait for.
    pub(crate) fn is_lent(&self) -> bool {
        !matches!(&self.kind, Kind::Slot(slot) if !slot.is_lent())
    }

    /// Whether nobody may write to it: pages of a file.
    pub fn is_read_only(&self) -> bool {
        matches!(self.kind, Kind::Mapped(..))
    }

    /// Copies its bytes from `start` to host memory. Foreign code may be writing to them; on a GPU
    /// this waits for the copy.
    ///
    /// # Errors
    /// What the GPU's driver answers.
    ///
    /// # Panics
    /// When `into` is longer than what it has from `start`.
    pub(crate) fn copy_out(&self, start: usize, into: &mut [u8]) -> Result<()> {
        match &self.kind {
            Kind::Slot(slot) => slot.copy_to(start, into),
            Kind::Own(bytes) => bytes.copy_to(start, into),
            Kind::Mapped(mapping, range) => {
                into.copy_from_slice(&mapping.file_bytes(range.clone())[start..][..into.len()]);
            }
            Kind::Gpu(memory) => {
                assert!(start + into.len() <= memory.len_bytes(), "beyond the storage's end");
                memory.copy_out(start, into)?;
            }
            Kind::Empty(_) => assert!(into.is_empty(), "beyond the storage's end"),
        }
        Ok(())
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Slot(_) => "slot",
            Kind::Mapped(..) => "mapped file",
            Kind::Gpu(_) => "gpu",
            Kind::Own(_) => "own memory",
            Kind::Empty(_) => "empty",
        };
        write!(f, "Storage({kind} on {}, {} bytes)", self.device(), self.len_bytes())
    }
}
