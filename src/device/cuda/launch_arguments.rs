//! The arguments of kernel launches: lists of pieces on their way to a GPU, with the kernels'
//! results, in pinned host memory that is reused.
//!
//! The memory holds the pieces followed by one number for each. It accompanies the slot that the
//! pieces belong to, and returns to its pool when the GPU has finished with it.

use super::context::Entered;
use super::kernels::Piece;
use super::memory::Pin;
use crate::error::Result;
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

const PAGE_BYTES: usize = 4096;

/// A zeroed page of host memory.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_BYTES]>);

// SAFETY: only the `LaunchArguments` that have a page access its bytes.
unsafe impl Sync for Page {}

/// The memory of a pool. All of it is pinned at once, as each registration takes 0.1 ms.
struct ArgumentMemory {
    /// Declared before the pages, so that they are unpinned before they are freed.
    _pin: Option<Pin>,
    pages: Vec<Page>,
}

/// The argument memory of one load, in parts of equal length.
pub(super) struct ArgumentPool {
    memory: Arc<ArgumentMemory>,
    /// The first pages of the parts that are not in use.
    free: Receiver<usize>,
    returns: Sender<usize>,
    /// The number of pieces that fit into one argument memory.
    pub piece_count: usize,
}

/// Argument memory in use; returned to its pool on drop.
pub(super) struct LaunchArguments {
    memory: Arc<ArgumentMemory>,
    first_page: usize,
    page_count: usize,
    returns: Sender<usize>,
    piece_count: usize,
    /// How many pieces, the last ones, are checksummed.
    pub checksum_count: usize,
}

impl ArgumentPool {
    /// Allocates memory for `count` lists of `piece_count` pieces each, pinned if `pinned` is set.
    ///
    /// # Errors
    /// If the memory cannot be pinned.
    pub fn new(
        entered: &Entered<'_>,
        count: usize,
        piece_count: usize,
        pinned: bool,
    ) -> Result<Self> {
        let page_count = Self::bytes(piece_count) / PAGE_BYTES;
        let page = || Page(UnsafeCell::new([0; PAGE_BYTES]));
        let pages: Vec<Page> = std::iter::repeat_with(page).take(count * page_count).collect();
        let (start, bytes) = (pages.as_ptr().addr(), size_of_val(&*pages));
        let pin = pinned.then(|| Pin::new(entered, start, bytes)).transpose()?;
        let (returns, free) = channel();
        for first_page in (0..pages.len()).step_by(page_count) {
            // Cannot fail, as the receiver is alive.
            let _ = returns.send(first_page);
        }
        let memory = Arc::new(ArgumentMemory { _pin: pin, pages });
        Ok(Self { memory, free, returns, piece_count })
    }

    /// The bytes of the memory for `piece_count` pieces and their results.
    pub fn bytes(piece_count: usize) -> usize {
        (piece_count.max(1) * (size_of::<Piece>() + size_of::<u64>())).next_multiple_of(PAGE_BYTES)
    }

    /// Takes free memory; waits until the GPU has finished with some if there is none.
    pub fn take(&self) -> LaunchArguments {
        LaunchArguments {
            memory: Arc::clone(&self.memory),
            // Cannot fail, as `self` holds a sender.
            first_page: self.free.recv().unwrap_or_default(),
            page_count: Self::bytes(self.piece_count) / PAGE_BYTES,
            returns: self.returns.clone(),
            piece_count: 0,
            checksum_count: 0,
        }
    }
}

impl LaunchArguments {
    fn bytes_mut(&mut self) -> &mut [u8] {
        let pages = &self.memory.pages[self.first_page..][..self.page_count];
        let start = UnsafeCell::raw_get(pages.as_ptr().cast::<UnsafeCell<u8>>());
        // SAFETY: pages are contiguous, initialised bytes without padding. Only these arguments have the
        // pages until they are dropped, and they are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, size_of_val(pages)) }
    }

    /// Writes the list and returns its bytes.
    ///
    /// # Panics
    /// If there are more pieces than fit into the memory.
    pub fn write(&mut self, pieces: impl ExactSizeIterator<Item = Piece>) -> &[u8] {
        self.piece_count = pieces.len();
        let bytes = pieces.len() * size_of::<Piece>();
        let bytes = &mut self.bytes_mut()[..bytes];
        let words = pieces.flat_map(|piece| [piece.source, piece.target, piece.length]);
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        bytes
    }

    /// The offset of the results, both in this memory and in the copy of the list on the GPU.
    pub fn results_offset(&self) -> usize {
        self.piece_count * size_of::<Piece>()
    }

    /// The memory for the results, to which the GPU writes.
    pub fn results_mut(&mut self) -> &mut [u8] {
        let (offset, count) = (self.results_offset(), self.piece_count);
        &mut self.bytes_mut()[offset..][..count * size_of::<u64>()]
    }

    /// The checksums of the last `checksum_count` pieces, which the GPU has written.
    pub fn checksums(&mut self) -> impl Iterator<Item = u64> + use<'_> {
        let first = self.piece_count - self.checksum_count;
        let results = &self.results_mut().as_chunks().0[first..];
        results.iter().map(|bytes| u64::from_ne_bytes(*bytes))
    }
}

impl Drop for LaunchArguments {
    fn drop(&mut self) {
        // If the pool is gone, the memory is freed with the last arguments.
        let _ = self.returns.send(self.first_page);
    }
}
