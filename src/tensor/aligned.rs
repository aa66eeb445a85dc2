//! Host memory of one tensor, aligned for whatever looks at it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// What it is aligned to: a cache line, and the widest vector.
pub(crate) const ALIGNMENT: usize = 64;

/// Bytes at a multiple of [`ALIGNMENT`].
pub(crate) struct Aligned {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its bytes.
unsafe impl Send for Aligned {}
// SAFETY: as above; through a shared reference they can only be read.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// So many zeros; `None` where there is no memory for them.
    pub fn zeroed(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        // SAFETY: the layout is not of size zero.
        NonNull::new(unsafe { alloc_zeroed(layout) }).map(|start| Self { start, len })
    }

    /// A copy of `bytes`; `None` where there is no memory for it.
    pub fn copy_of(bytes: &[u8]) -> Option<Self> {
        let mut copy = Self::zeroed(bytes.len())?;
        copy.bytes_mut().copy_from_slice(bytes);
        Some(copy)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this length and zeroed then.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The same, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and exclusive as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Where they begin, to be lent to who may write to them.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.max(1), ALIGNMENT).ok()
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated with this very layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}
