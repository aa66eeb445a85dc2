//! What tensors are views of.

use super::aligned::Aligned;
use crate::error::Result;
use crate::options::Device;
use crate::ring::{FullSlot, Mapping};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
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
            Kind::Gpu(memory) => memory.len_bytes(),
            _ => self.bytes().map_or(0, <[u8]>::len),
        }
    }

    /// Its bytes, which nobody changes while it lives (a mapped file excepted:
    /// [`ReadPath::Mapped`](crate::ReadPath::Mapped)); `None` where they are on a GPU.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Slot(slot) => Some(slot.bytes()),
            Kind::Mapped(mapping, range) => Some(mapping.file_bytes(range.clone())),
            Kind::Own(bytes) => Some(bytes.bytes()),
            Kind::Empty(_) => Some(&[]),
            Kind::Gpu(_) => None,
        }
    }

    /// Where it begins, in its device's address space.
    pub fn address(&self) -> u64 {
        match &self.kind {
            Kind::Gpu(memory) => memory.address(),
            _ => self.bytes().map_or(0, |bytes| bytes.as_ptr() as u64),
        }
    }

    /// Where it begins in host memory; `None` on a GPU, and where there is nothing.
    pub(crate) fn pointer(&self) -> Option<NonNull<u8>> {
        match &self.kind {
            Kind::Slot(slot) => Some(slot.start()),
            Kind::Mapped(mapping, range) => {
                NonNull::new(mapping.file_bytes(range.clone()).as_ptr().cast_mut())
            }
            Kind::Own(bytes) => Some(bytes.start()),
            Kind::Gpu(_) | Kind::Empty(_) => None,
        }
    }

    /// Whether nobody may write to it: pages of a file.
    pub fn is_read_only(&self) -> bool {
        matches!(self.kind, Kind::Mapped(..))
    }

    /// Copies its bytes from `start` to host memory; on a GPU this waits for them.
    ///
    /// # Errors
    /// What the GPU's driver answers.
    ///
    /// # Panics
    /// When `into` is longer than what is there from `start`.
    pub fn copy_to(&self, start: usize, into: &mut [u8]) -> Result<()> {
        match (&self.kind, self.bytes()) {
            (_, Some(bytes)) => into.copy_from_slice(&bytes[start..][..into.len()]),
            (Kind::Gpu(memory), _) => {
                assert!(start + into.len() <= memory.len_bytes(), "beyond the storage's end");
                memory.copy_out(start, into)?;
            }
            (_, None) => {} // only GPUs have no host bytes
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
