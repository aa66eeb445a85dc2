//! Memory for one tensor that is read on its own.

use super::Storage;
use super::aligned::Aligned;
use crate::error::{Error, ErrorKind, Result, Size};
use crate::ring::{Ring, Window};

/// Tensors larger than this get a mapping of their own. A process may have some ten thousand
/// mappings.
const MAPPED_BYTES: u64 = 1 << 20;

/// Memory that is to be filled with a tensor.
pub(crate) struct TensorBuffer {
    kind: BufferKind,
    /// The tensor's offset in its storage.
    start: usize,
}

enum BufferKind {
    Small(Aligned),
    /// The bytes before the tensor, if any, and those of the tensor.
    Large(Vec<Window>),
}

impl TensorBuffer {
    /// A buffer for `len_bytes` bytes at `offset_bytes` of a source with blocks of `block_bytes`. A
    /// large buffer is congruent to the offset modulo the block, so that direct reads need no copy.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when memory runs out.
    pub fn new(len_bytes: u64, offset_bytes: u64, block_bytes: usize) -> Result<Self> {
        let none = || {
            let size = Size(len_bytes);
            let sentence = format!("there is no memory for a tensor of {size}; free memory");
            Error::new(ErrorKind::OutOfMemory, sentence)
        };
        let len = usize::try_from(len_bytes).map_err(|_| none())?;
        if len_bytes < MAPPED_BYTES {
            let small = Aligned::zeroed(len).ok_or_else(none)?;
            return Ok(Self { kind: BufferKind::Small(small), start: 0 });
        }
        let start = (offset_bytes % block_bytes as u64) as usize;
        let end = start.checked_add(len).ok_or_else(none)?;
        let slot = Ring::new(end, block_bytes)?.allocate(end).ok_or_else(none)?;
        let ends = if start == 0 { vec![end] } else { vec![start, end] };
        Ok(Self { kind: BufferKind::Large(slot.into_windows(&ends)), start })
    }

    /// The memory for the tensor's bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.kind {
            BufferKind::Small(bytes) => bytes.bytes_mut(),
            BufferKind::Large(windows) => windows.last_mut().map_or(&mut [], Window::unfilled_mut),
        }
    }

    /// The filled memory as a storage, and the tensor's offset in it.
    ///
    /// # Errors
    /// Never: a slot whose windows were all completed is full.
    pub fn into_storage(self) -> Result<(Storage, usize)> {
        match self.kind {
            BufferKind::Small(bytes) => Ok((Storage::own(bytes), 0)),
            BufferKind::Large(windows) => {
                let slot = windows.into_iter().filter_map(Window::complete).last();
                let open = || Error::new(ErrorKind::Io, "a slot is not full; this is a bug");
                slot.map(|slot| (Storage::from_slot(slot), self.start)).ok_or_else(open)
            }
        }
    }
}
