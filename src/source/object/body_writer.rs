//! Writes the body of a response into a window.

use crate::error::{Error, ErrorKind, Result};
use crate::ring::{PAGE_BYTES, Ring, Window};
use crate::source::verify::RangeDigest;
use bytes::Bytes;

/// Writes a range of known length to the unfilled part of a window. The filled length of the window
/// says how many bytes have been written.
pub(super) struct BodyWriter {
    pub window: Window,
    start: usize,
    len: usize,
    digest: RangeDigest,
}

/// A position that the writer can return to.
pub(super) struct SavedPosition(usize, RangeDigest);

impl BodyWriter {
    /// A writer of `len` bytes, which are also added to `digest`.
    pub fn new(window: Window, len: usize, digest: RangeDigest) -> Self {
        Self { start: window.filled(), window, len, digest }
    }

    /// A writer of `len` bytes (at least one) to memory that it allocates.
    ///
    /// # Errors
    /// [`OutOfMemory`](ErrorKind::OutOfMemory).
    pub fn in_memory(len: usize) -> Result<Self> {
        let ring = Ring::new(len.next_multiple_of(PAGE_BYTES), PAGE_BYTES)?;
        let windows = ring.allocate(len).map(|slot| slot.into_windows(&[len]));
        let window = windows.and_then(|mut windows| windows.pop()).ok_or_else(|| {
            Error::new(ErrorKind::OutOfMemory, format!("no memory for {len} bytes of a header"))
        })?;
        Ok(Self::new(window, len, RangeDigest::default()))
    }

    /// How many bytes have been written.
    pub fn written(&self) -> usize {
        self.window.filled() - self.start
    }

    /// How many bytes are missing.
    pub fn left(&self) -> usize {
        self.len - self.written()
    }

    /// The memory for the next bytes, at most `len_max` of them.
    pub fn next(&mut self, len_max: usize) -> &mut [u8] {
        let len = self.left().min(len_max);
        &mut self.window.unfilled_mut()[..len]
    }

    /// Records that the next `bytes` bytes were written.
    pub fn advance(&mut self, bytes: usize) {
        self.digest.update(&self.window.unfilled_mut()[..bytes]);
        self.window.set_filled(self.window.filled() + bytes);
    }

    /// The present position.
    pub fn position(&self) -> SavedPosition {
        SavedPosition(self.window.filled(), self.digest.clone())
    }

    /// Returns to `position` and discards the bytes that were written since.
    pub fn go_back(&mut self, position: SavedPosition) {
        self.window.set_filled(position.0);
        self.digest = position.1;
    }

    /// The window with its initial filled length, and the digest of the written bytes.
    pub fn into_parts(mut self) -> (Window, RangeDigest) {
        self.window.set_filled(self.start);
        (self.window, self.digest)
    }

    /// The bytes that were written to the memory that [`in_memory`](Self::in_memory) allocated.
    pub fn into_bytes(self) -> Bytes {
        let len = self.written();
        let full = self.into_parts().0.complete();
        full.map(|full| Bytes::copy_from_slice(full.bytes(0..len))).unwrap_or_default()
    }
}
