//! A slot's life, in types: `Slot` (free to fill) -> `Window`s (filling) -> `FullSlot` (readable).
//!
//! A [`Slot`] is exclusive memory. [`Slot::into_windows`] splits it into disjoint [`Window`]s, each
//! the only way to write its part, each travelling with one read operation. When the last window
//! is [completed](Window::complete) its holder gets the [`FullSlot`], the shared, read-only view.
//! A window that is dropped instead (its read failed or was abandoned) makes the full slot
//! impossible: half-filled memory cannot be looked at. The memory returns to the ring when the
//! last of them is gone, so neither a reader in flight nor a tensor in a user's hand can see it
//! reused.
//!
//! A filled window may [share](Window::share) its bytes before the others are filled: it gives up
//! the right to write them for a [`Part`], the read-only view of a stretch of the slot. A part keeps
//! the slot as a tensor does.
//!
//! A slot may carry a [`TraceSpan`], by which a load's timeline learns of its life; the mark is dropped
//! just before the memory returns to the ring.
//!
//! Windows are also made over memory that a caller lends for `read_into`; see [`Window::lend`].

use super::Ring;
use crate::timeline::{Stage, TraceSpan};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Exclusive memory of the ring, page-aligned; back to the ring on drop.
pub struct Slot {
    ring: Arc<Ring>,
    range: Range<usize>,
    mark: Option<TraceSpan>,
}

impl Slot {
    /// Made by the ring's allocator, which guarantees that no two live slots overlap.
    pub(super) fn new(ring: Arc<Ring>, range: Range<usize>) -> Self {
        Self { ring, range, mark: None }
    }

    /// The same, with a mark that learns of its life.
    pub(crate) fn marked(mut self, mark: TraceSpan) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Splits the slot into windows that end at each of `ends` (ascending, the last at most the
    /// slot's length). At least one.
    ///
    /// # Panics
    /// When `ends` does not ascend within the slot: a bug in the planner.
    pub fn into_windows(self, ends: &[usize]) -> Vec<Window> {
        let base = self.ring.memory().start();
        let slot_start = self.range.start;
        let slot_len = self.len();
        let windows_open = AtomicUsize::new(ends.len());
        let filling = Arc::new(Filling { windows_open, lent: AtomicBool::new(false), slot: self });
        let mut start = 0;
        let window = |&end: &usize| {
            assert!(start < end && end <= slot_len, "windows must ascend within their slot");
            // SAFETY: slot_start + start lies within the ring's mapping, as the slot does.
            let ptr = unsafe { base.add(slot_start + start) };
            let len = end - start;
            start = end;
            Window { ptr, len, end: len, filled: 0, owner: Some(Arc::clone(&filling)) }
        };
        ends.iter().map(window).collect()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // First: from here on others may take the memory.
        self.mark = None;
        self.ring.release(self.range.clone());
    }
}

struct Filling {
    windows_open: AtomicUsize,
    /// Whether somebody was told where it begins, who may write to it.
    lent: AtomicBool,
    slot: Slot,
}

/// The only way to write to one part of a slot (or of lent memory).
pub struct Window {
    ptr: NonNull<u8>,
    len: usize,
    /// How far reads may fill it at the moment; at most `len`.
    end: usize,
    filled: usize,
    /// Keeps the memory; `None` for lent memory, which its lender keeps.
    owner: Option<Arc<Filling>>,
}

// SAFETY: a window is an exclusive borrow of plain bytes, kept alive by `owner` or the lender.
unsafe impl Send for Window {}

impl Window {
    /// A window over memory that a caller lends.
    ///
    /// # Safety
    /// The bytes stay valid, and nobody else touches them, until the window is dropped or
    /// completed.
    pub(crate) unsafe fn lend(bytes: NonNull<[u8]>) -> Self {
        let len = bytes.len();
        Self { ptr: bytes.cast(), len, end: len, filled: 0, owner: None }
    }

    /// Its whole length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes from its front are filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Says that the first `filled` bytes are what was asked for.
    ///
    /// # Panics
    /// When that is more than the window holds.
    pub fn set_filled(&mut self, filled: usize) {
        assert!(filled <= self.len, "a reader claims more bytes than the window holds");
        self.filled = filled;
    }

    /// How many bytes are still to fill.
    pub fn unfilled_len(&self) -> usize {
        self.end.saturating_sub(self.filled)
    }

    /// Lets only the next `bytes` bytes be filled, until it is [widened](Self::widen).
    pub fn narrow(&mut self, bytes: usize) {
        self.end = self.len.min(self.filled.saturating_add(bytes));
    }

    /// Lets all of it be filled again.
    pub fn widen(&mut self) {
        self.end = self.len;
    }

    /// The address of the first unfilled byte, for a read operation that owns this window.
    pub fn unfilled_ptr(&mut self) -> *mut u8 {
        // SAFETY: filled <= len, so this stays within (or one past) the window's memory.
        unsafe { self.ptr.as_ptr().add(self.filled) }
    }

    /// The bytes still to fill.
    pub fn unfilled_mut(&mut self) -> &mut [u8] {
        let len = self.unfilled_len();
        // SAFETY: initialised memory (zeroed by the kernel or lent as `[u8]`), exclusive to this
        // window, alive as long as it.
        unsafe { std::slice::from_raw_parts_mut(self.unfilled_ptr(), len) }
    }

    /// The filled bytes.
    pub fn filled_bytes(&self) -> &[u8] {
        // SAFETY: as `unfilled_mut`; filled <= len.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.filled) }
    }

    /// The filled bytes, to be read by others from now on, and written by nobody: the window is left
    /// with those behind them, and nothing is filled of it. `None` for lent windows.
    pub fn share(&mut self) -> Option<Part> {
        let filling = Arc::clone(self.owner.as_ref()?);
        let base = filling.slot.ring.memory().start().as_ptr() as usize;
        let start = self.ptr.as_ptr() as usize - base;
        let part = Part { filling, range: start..start + self.filled };
        // SAFETY: filled <= len, so this stays within (or one past) the window's memory.
        self.ptr = unsafe { self.ptr.add(self.filled) };
        self.len -= self.filled;
        self.end = self.len;
        self.filled = 0;
        Some(part)
    }

    /// Says how bytes of it came.
    pub(crate) fn came_by(&self, way: &'static str) {
        let mark = self.owner.as_ref().and_then(|filling| filling.slot.mark.as_ref());
        if let Some(mark) = mark {
            mark.came_by(way);
        }
    }

    /// Hands the window in as filled; the last one of a slot gets the full slot.
    ///
    /// Lent windows give `None`: their lender knows.
    pub fn complete(mut self) -> Option<FullSlot> {
        let filling = self.owner.take()?;
        // AcqRel: what every window's reader wrote happens before the full slot is looked at.
        let last = filling.windows_open.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then_some(FullSlot { filling })
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window({} of {} bytes filled)", self.filled, self.len)
    }
}

/// Filled bytes of a slot, of which other bytes may still be written: shared and read-only.
#[derive(Clone)]
pub struct Part {
    filling: Arc<Filling>,
    /// In the ring's memory.
    range: Range<usize>,
}

impl Part {
    /// Whether whoever has the slot may have changed its bytes.
    pub fn may_have_changed(&self) -> bool {
        self.filling.lent.load(Ordering::Acquire)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the window that these bytes were of has given them up, and it was the only way to
        // write them but for lending the slot; who looks at them then takes no byte for more than a
        // byte. The slot is not released while `filling` lives.
        unsafe { self.filling.slot.ring.memory().bytes(self.range.clone()) }
    }

    /// Those of its bytes that stand in `range`.
    ///
    /// # Panics
    /// When it has fewer.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "beyond the part's end");
        let start = self.range.start;
        Self { filling: Arc::clone(&self.filling), range: start + range.start..start + range.end }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes)", self.range.len())
    }
}

/// A slot whose every window was filled: shared and read-only until the last clone is dropped.
#[derive(Clone)]
pub struct FullSlot {
    filling: Arc<Filling>,
}

impl FullSlot {
    /// The slot's bytes.
    pub fn bytes(&self) -> &[u8] {
        let slot = &self.filling.slot;
        // SAFETY: all windows were completed (consumed), so nobody can write to the slot, and it
        // is not released while `filling` lives.
        unsafe { slot.ring.memory().bytes(slot.range.clone()) }
    }

    /// Says what the slot is used for from now on.
    pub(crate) fn enter(&self, stage: Stage) {
        if let Some(mark) = &self.filling.slot.mark {
            mark.stage(stage);
        }
    }

    /// Whether others hold the slot, too.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.filling) > 1
    }

    /// Where its bytes begin, for who lends them to others, to write to them too.
    pub fn start(&self) -> NonNull<u8> {
        self.filling.lent.store(true, Ordering::Release);
        let slot = &self.filling.slot;
        // SAFETY: the slot lies within the ring's mapping.
        unsafe { slot.ring.memory().start().add(slot.range.start) }
    }
}

impl fmt::Debug for FullSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FullSlot({} bytes)", self.filling.slot.len())
    }
}
