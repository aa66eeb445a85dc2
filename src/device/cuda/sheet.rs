//! Lists of pieces on their way to a GPU, and its answers: pinned host memory, used again and again.
//!
//! A sheet holds pieces and, behind them, a number for each. It travels with the slot whose pieces
//! are on it and comes back to its pool when the GPU has passed them.

use super::context::Entered;
use super::kernels::Piece;
use super::memory::Pin;
use crate::error::Result;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

const PAGE_BYTES: usize = 4096;

/// Host memory for a list of pieces and its results.
struct Sheet {
    /// Before the memory, so that it is dropped first.
    _pin: Option<Pin>,
    memory: Memory,
}

/// Zeroed pages of the heap.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory without thread affinity, owned by one value.
unsafe impl Send for Memory {}
// SAFETY: it is written through `&mut` alone, and by the GPU while nobody looks.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The sheets of one load: as many as were made, some of them in use.
pub(super) struct Pool {
    free: Mutex<Vec<Sheet>>,
    returned: Condvar,
    piece_count: usize,
}

/// A sheet in use; back to its pool on drop.
pub(super) struct PooledSheet {
    sheet: Option<Sheet>,
    pool: Arc<Pool>,
}

impl Pool {
    /// `count` sheets for `piece_count` pieces each; pinned if `pinned` says so.
    ///
    /// # Errors
    /// When they cannot be pinned.
    pub fn new(
        entered: &Entered<'_>,
        count: usize,
        piece_count: usize,
        pinned: bool,
    ) -> Result<Arc<Self>> {
        let sheets = (0..count).map(|_| Sheet::new(entered, Self::bytes(piece_count), pinned));
        let free = Mutex::new(sheets.collect::<Result<_>>()?);
        Ok(Arc::new(Self { free, returned: Condvar::new(), piece_count }))
    }

    /// How many bytes a sheet of so many pieces has.
    pub fn bytes(piece_count: usize) -> usize {
        (piece_count.max(1) * (size_of::<Piece>() + size_of::<u64>())).next_multiple_of(PAGE_BYTES)
    }

    /// How many pieces a sheet takes.
    pub fn piece_count(&self) -> usize {
        self.piece_count
    }

    /// A free sheet, waiting for one: they come back as the GPU works on.
    pub fn take(self: &Arc<Self>) -> PooledSheet {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(sheet) = free.pop() {
                return PooledSheet { sheet: Some(sheet), pool: Arc::clone(self) };
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Sheet {
    fn new(entered: &Entered<'_>, bytes: usize, pinned: bool) -> Result<Self> {
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).unwrap_or(Layout::new::<u64>());
        // SAFETY: the layout is not empty.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        let memory = Memory { start, layout };
        let pin = pinned.then(|| Pin::new(entered, start.as_ptr() as usize, bytes)).transpose()?;
        Ok(Self { _pin: pin, memory })
    }
}

impl PooledSheet {
    fn memory(&self) -> (*mut u8, usize) {
        self.sheet.as_ref().map_or((std::ptr::null_mut(), 0), |sheet| {
            (sheet.memory.start.as_ptr(), sheet.memory.layout.size())
        })
    }

    /// Writes a list of at most as many pieces as it has room for; gives its bytes.
    pub fn write(&mut self, pieces: impl ExactSizeIterator<Item = Piece>) -> &[u8] {
        let (start, len) = self.memory();
        let bytes = pieces.len() * size_of::<Piece>();
        assert!(bytes <= len, "more pieces than a sheet takes");
        for (number, piece) in pieces.enumerate() {
            // SAFETY: within the memory, as just checked, which is aligned to pages and ours alone.
            unsafe { start.cast::<Piece>().add(number).write(piece) };
        }
        // SAFETY: just written.
        unsafe { std::slice::from_raw_parts(start, bytes) }
    }

    /// Where the results of a list of `count` pieces begin, on the sheet as in its copy on the GPU.
    pub fn results_offset(count: usize) -> usize {
        count * size_of::<Piece>()
    }

    /// The memory for the results of a list of `count` pieces, for the GPU to write to.
    pub fn results_mut(&mut self, count: usize) -> &mut [u8] {
        let (start, len) = self.memory();
        let (offset, bytes) = (Self::results_offset(count), count * size_of::<u64>());
        assert!(offset + bytes <= len, "more results than a sheet takes");
        // SAFETY: within the memory, initialised (zeroed), ours alone.
        unsafe { std::slice::from_raw_parts_mut(start.add(offset), bytes) }
    }

    /// The results of a list of `count` pieces, which the GPU has written.
    pub fn results(&mut self, count: usize) -> impl Iterator<Item = u64> + use<'_> {
        self.results_mut(count).as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes))
    }
}

impl Drop for PooledSheet {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.sheet.take());
        self.pool.returned.notify_one();
    }
}
