//! Host memory of one tensor, aligned for every element type.

use crate::ring::copy_lent;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Range;
use std::ptr::NonNull;

/// The alignment in bytes: that of a cache line and of the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;

/// Bytes at an address that is a multiple of [`ALIGNMENT`].
pub(crate) struct Aligned {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the value owns its bytes.
unsafe impl Send for Aligned {}
// SAFETY: as above; Rust code can only read them through a shared reference.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// Allocates `len` zero bytes. Returns `None` when memory runs out.
    pub fn zeroed(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        // SAFETY: the layout is not of size zero.
        NonNull::new(unsafe { alloc_zeroed(layout) }).map(|start| Self { start, len })
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes in `range`.
    ///
    /// # Panics
    /// When the memory has fewer bytes.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len, "beyond the memory's end");
        // SAFETY: in bounds of memory that was zeroed when it was allocated. Rust code writes to it
        // through `&mut self` alone; foreign code to which it is exported does so while nobody has
        // a slice of it (`Tensor::export_writable`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.len()) }
    }

    /// Copies the bytes from `start` on, which foreign code may be changing meanwhile.
    ///
    /// # Panics
    /// When the memory has fewer bytes.
    pub fn copy_to(&self, start: usize, into: &mut [u8]) {
        assert!(start <= self.len && into.len() <= self.len - start, "beyond the memory's end");
        // SAFETY: in bounds, initialised, and alive as long as `self`; while that is shared, no Rust
        // code writes to it.
        unsafe { copy_lent(self.start.add(start), into) }
    }

    /// All bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: in bounds and initialised, as in `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The address of the first byte.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
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
