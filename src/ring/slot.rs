//! The states of a slot as types: `Slot` (empty) -> `Window`s (being filled) -> `FullSlot` (readable).
//!
//! A [`Slot`] is exclusive memory. [`Slot::into_windows`] splits it into disjoint [`Window`]s, each
//! the only way to write to its part, each owned by one read operation. Completing the last window
//! ([`Window::complete`]) returns the [`FullSlot`], the shared, read-only view. If a window is dropped
//! instead (its read failed or was abandoned), there is never a full slot: half-filled memory cannot
//! be read. The memory returns to the ring when the last of these values is dropped, so it is not
//! reused while a read or a tensor uses it.
//!
//! A filled window may [share](Window::share) its bytes before the others are filled: it gives up
//! the right to write them for a [`Part`], a read-only view of a range of the slot. A part keeps the
//! slot alive, as a tensor does.
//!
//! A slot may carry a [`TraceSpan`], which records its use in the load's timeline. The span is dropped
//! just before the memory returns to the ring.
//!
//! Windows also cover memory that a caller lends for `read_into`; see [`Window::lend`].

use super::allocator::Ring;
use super::lending::{Borrow, copy_lent};
use crate::timeline::{Stage, TraceSpan};
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Exclusive, page-aligned memory of a ring. Dropping it returns the memory to the ring.
pub struct Slot {
    ring: Arc<Ring>,
    range: Range<usize>,
    span: Option<TraceSpan>,
}

impl Ring {
    /// Allocates a slot of at least `len` bytes (rounded up to blocks). Returns `None` if no slot
    /// of this length is free, or if the ring is closed.
    pub fn allocate(self: &Arc<Self>, len: usize) -> Option<Slot> {
        self.allocate_near(len, 0)
    }

    /// As [`allocate`](Self::allocate), preferably from the offset `near` on.
    pub fn allocate_near(self: &Arc<Self>, len: usize, near: usize) -> Option<Slot> {
        let [range] = self.take([len], near)?;
        Some(Slot { ring: Arc::clone(self), range, span: None })
    }

    /// Allocates two slots as [`allocate`](Self::allocate) does, or none and returns `None` if they
    /// do not both fit.
    pub fn allocate_two(self: &Arc<Self>, lens: [usize; 2]) -> Option<[Slot; 2]> {
        let slot = |range| Slot { ring: Arc::clone(self), range, span: None };
        Some(self.take(lens, 0)?.map(slot))
    }
}

impl Slot {
    /// Adds the span that records the slot's use.
    pub(crate) fn traced(mut self, span: TraceSpan) -> Self {
        self.span = Some(span);
        self
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Splits the slot into windows, one ending at each of `ends`. There is at least one end; the
    /// ends ascend, and the last one is at most the slot's length.
    ///
    /// # Panics
    /// When `ends` does not ascend within the slot, which is a bug in the planner.
    pub fn into_windows(self, ends: &[usize]) -> Vec<Window> {
        let base = self.ring.memory.start();
        let slot_start = self.range.start;
        let slot_len = self.len();
        let windows_open = AtomicUsize::new(ends.len());
        let filling = Arc::new(Filling { windows_open, slot: self });
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
        // First: after the release, others may allocate the memory.
        self.span = None;
        self.ring.release(self.range.clone());
    }
}

struct Filling {
    windows_open: AtomicUsize,
    slot: Slot,
}

impl Filling {
    /// The address of byte `at` of the ring's memory, which lies in this slot.
    fn address(&self, at: usize) -> NonNull<u8> {
        // SAFETY: the slot lies within the ring's mapping.
        unsafe { self.slot.ring.memory.start().add(at) }
    }
}

/// The exclusive right to write to one part of a slot, or of a caller's memory.
pub struct Window {
    ptr: NonNull<u8>,
    len: usize,
    /// The offset up to which reads may currently fill the window; at most `len`.
    end: usize,
    filled: usize,
    /// Keeps the memory alive. `None` for memory of a caller, which the caller keeps alive.
    owner: Option<Arc<Filling>>,
}

// SAFETY: a window is an exclusive borrow of plain bytes, kept alive by `owner` or the lender.
unsafe impl Send for Window {}

impl Window {
    /// A window over the memory of a caller.
    ///
    /// # Safety
    /// The bytes stay valid, and nobody else touches them, until the window is dropped or
    /// completed.
    pub(crate) unsafe fn lend(bytes: NonNull<[u8]>) -> Self {
        let len = bytes.len();
        Self { ptr: bytes.cast(), len, end: len, filled: 0, owner: None }
    }

    /// The whole length in bytes, filled or not.
    #[allow(clippy::len_without_is_empty, reason = "a window is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many bytes from the start are filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Records that the first `filled` bytes have been read.
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

    /// Restricts reads to the next `bytes` bytes, until [`widen`](Self::widen).
    pub fn narrow(&mut self, bytes: usize) {
        self.end = self.len.min(self.filled.saturating_add(bytes));
    }

    /// Ends the restriction of [`narrow`](Self::narrow).
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
        // SAFETY: initialised memory (zeroed by the kernel, or a caller's `[u8]`), exclusive to
        // this window, alive as long as it.
        unsafe { std::slice::from_raw_parts_mut(self.unfilled_ptr(), len) }
    }

    /// The filled bytes.
    pub fn filled_bytes(&self) -> &[u8] {
        // SAFETY: as `unfilled_mut`; filled <= len.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.filled) }
    }

    /// Gives up the filled bytes, which others may read from now on. The window keeps the remaining
    /// bytes, none of which is filled. Returns `None` for windows over a caller's memory.
    pub fn share(&mut self) -> Option<Part> {
        let filling = Arc::clone(self.owner.as_ref()?);
        let base = filling.slot.ring.memory.start().as_ptr() as usize;
        let start = self.ptr.as_ptr() as usize - base;
        let part = Part { filling, range: start..start + self.filled };
        // SAFETY: filled <= len, so this stays within (or one past) the window's memory.
        self.ptr = unsafe { self.ptr.add(self.filled) };
        self.len -= self.filled;
        self.end = self.len;
        self.filled = 0;
        Some(part)
    }

    /// The bytes of `part`, which was [shared](Self::share) by a window of the same slot.
    ///
    /// # Panics
    /// When the part is of another slot.
    pub fn shared_bytes<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        let of_slot = self.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, &part.filling));
        assert!(of_slot, "the part is of another slot");
        // SAFETY: the windows have given these bytes up, and a slot is lent only when it is full:
        // not before this window, which is borrowed, is completed.
        unsafe { part.filling.slot.ring.memory.bytes(part.range.clone()) }
    }

    /// Records by which path bytes of the window were read.
    pub(crate) fn record_path(&self, path: &'static str) {
        let span = self.owner.as_ref().and_then(|filling| filling.slot.span.as_ref());
        if let Some(span) = span {
            span.record_path(path);
        }
    }

    /// Ends the window, which is filled. The last window of a slot returns the full slot. Other
    /// windows, and windows over a caller's memory, return `None`.
    pub fn complete(mut self) -> Option<FullSlot> {
        let filling = self.owner.take()?;
        // AcqRel: the writes to every window happen before the full slot is read.
        let last = filling.windows_open.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then_some(FullSlot { filling })
    }
}

/// Filled bytes of a slot whose other bytes may still be written.
///
/// The slot's holder may lend it to foreign writers, so a part is read either
/// [borrowed](Self::borrow), which is impossible once the ring's memory is lent, or
/// [copied](Self::copy_to).
#[derive(Clone)]
pub struct Part {
    filling: Arc<Filling>,
    /// The range of the part in the ring's memory.
    range: Range<usize>,
}

impl Part {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// The part's bytes as a slice. The ring's memory cannot be lent while the slice lives, so hold
    /// it briefly. Returns `None` once memory of the ring is lent.
    pub fn borrow(&self) -> Option<BorrowedPart<'_>> {
        let borrow = self.filling.slot.ring.lending.borrow()?;
        Some(BorrowedPart { part: self, _borrow: borrow })
    }

    /// Copies the part's bytes. Foreign code to which the slot is lent may change them meanwhile.
    ///
    /// # Panics
    /// When `into` is not as long as the part.
    pub fn copy_to(&self, into: &mut [u8]) {
        assert_eq!(into.len(), self.len(), "a copy of another length");
        // SAFETY: initialised memory of the ring, alive as long as `filling`. The windows have given
        // these bytes up, so no Rust code writes to them.
        unsafe { copy_lent(self.filling.address(self.range.start), into) }
    }

    /// The sub-range `range` of this part.
    ///
    /// # Panics
    /// When the part has fewer bytes.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "beyond the part's end");
        let start = self.range.start;
        Self { filling: Arc::clone(&self.filling), range: start + range.start..start + range.end }
    }
}

/// The bytes of a [`Part`] while they cannot change.
pub struct BorrowedPart<'a> {
    part: &'a Part,
    _borrow: Borrow<'a>,
}

impl Deref for BorrowedPart<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the windows have given these bytes up, and the ring's memory is not lent while
        // `_borrow` lives. The slot is not released while the part lives.
        unsafe { self.part.filling.slot.ring.memory.bytes(self.part.range.clone()) }
    }
}

/// A slot whose windows were all filled: shared and read-only until the last clone is dropped.
#[derive(Clone)]
pub struct FullSlot {
    filling: Arc<Filling>,
}

impl FullSlot {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.filling.slot.len()
    }

    /// The slot's bytes in `range`; other bytes are not touched.
    ///
    /// # Panics
    /// When the slot has fewer bytes.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        let range = self.in_ring(range);
        // SAFETY: all windows were completed (consumed), so Rust code cannot write to the slot, and
        // foreign code that writes through the pointer of `lend` ensures that nobody has a slice of
        // it. The slot is not released while `filling` lives.
        unsafe { self.filling.slot.ring.memory.bytes(range) }
    }

    /// Copies the bytes from `start` on. Foreign code to which the slot is lent may change them
    /// meanwhile.
    ///
    /// # Panics
    /// When the slot has fewer bytes.
    pub(crate) fn copy_to(&self, start: usize, into: &mut [u8]) {
        let range = self.in_ring(start..start + into.len());
        // SAFETY: initialised memory of the ring, alive as long as `filling`; all windows were
        // completed, so no Rust code writes to it.
        unsafe { copy_lent(self.filling.address(range.start), into) }
    }

    fn in_ring(&self, range: Range<usize>) -> Range<usize> {
        assert!(range.start <= range.end && range.end <= self.len(), "beyond the slot's end");
        let start = self.filling.slot.range.start;
        start + range.start..start + range.end
    }

    /// Records in the timeline what the slot is used for from now on.
    pub(crate) fn enter(&self, stage: Stage) {
        if let Some(span) = &self.filling.slot.span {
            span.stage(stage);
        }
    }

    /// Whether clones or parts of the slot exist.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.filling) > 1
    }

    /// The address of the slot's first byte, to be read from.
    pub fn as_ptr(&self) -> *const u8 {
        self.filling.address(self.filling.slot.range.start).as_ptr()
    }

    /// The address of the slot's first byte, to be written to by foreign code. Waits until no
    /// [`Part`] of the ring is borrowed; from then on parts can only be copied.
    ///
    /// Whoever writes to the slot makes sure that nobody has a slice of the same bytes
    /// ([`bytes`](Self::bytes)) meanwhile.
    pub fn lend(&self) -> NonNull<u8> {
        self.filling.slot.ring.lending.lend();
        self.filling.address(self.filling.slot.range.start)
    }

    /// Whether [`lend`](Self::lend) has nothing to wait for.
    pub fn is_lent(&self) -> bool {
        self.filling.slot.ring.lending.is_lent()
    }
}
