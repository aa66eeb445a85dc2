//! The ring: the memory that reads land in, and the only thing that the memory limit sizes.
//!
//! A ring is one huge-page-aligned mapping that is handed out as *slots*: page-aligned ranges, one
//! an extent, sized to fit it. For host loads the slot *is* the tensors' final memory: a read lands
//! there, the tensors are views of it, and when the last of them is dropped the range is free for
//! a later extent. The capacity therefore bounds what a load can hold at once, whatever the caller
//! keeps. Without a limit the capacity is the whole load, so that nothing ever waits.
//!
//! ```text
//!            allocate                 complete (all windows)          last tensor dropped
//!   free ----------------> filling --------------------------> full ----------------------> free
//! ```
//!
//! Allocation is first-fit from the lowest address: a consumer that drops tensors as they come
//! keeps the load in the same few, already faulted pages. Freed neighbours merge. When the load
//! needs no more slots the ring is [closed](Ring::close): from then on freed ranges go back to the
//! kernel at once.
//!
//! # Slices and foreign writers
//!
//! A Python program may write to its tensors, through pointers that DLPack hands out, at any moment;
//! Rust code must not have a `&[u8]` of bytes that change. Therefore:
//!
//! - Slices cover exactly the bytes that were asked for ([`FullSlot::bytes`] takes a range), never a
//!   whole slot in which another tensor may be written to.
//! - Only [`FullSlot::lend`] gives a pointer to write through, and only full slots can be lent.
//!   Before that, all windows and their slices are gone.
//! - The cache's writer reads a slot behind the load, by way of a [`Part`]. A part gives a slice only
//!   while nothing of the ring is lent ([`Part::borrow`]), and the first `lend` waits until all
//!   borrowed parts are returned. From then on parts can only be copied, by atomic loads. The writer
//!   checks its copy against checksums that were computed before the slot was full
//!   ([`Window::shared_bytes`]), and writes that copy: the bytes that are checked are the bytes that
//!   are written.
//! - The slices of a tensor that is exported as writable are ruled out by the contract of
//!   [`Tensor::export_writable`](crate::Tensor::export_writable), an unsafe function. The safe
//!   [`Tensor::export`](crate::Tensor::export) marks what it exports as read-only.
//!
//! Loads whose tensors are never lent pay one uncontended lock for each part that is cached.
//!
//! In debug builds a released slot is filled with a poison byte, and found intact or the process
//! panics when it is handed out again: a write after the return of a slot does not go unseen.

mod lending;
mod memory;
mod slot;

pub(crate) use lending::copy_lent;
pub use memory::{HUGE_PAGE_BYTES, Mapping};
pub use slot::{FullSlot, Part, Slot, Window};

use crate::error::Result;
use lending::Lending;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The page size; slots start and end at multiples of at least this.
pub const PAGE_BYTES: usize = 4096;

/// What released memory is filled with in debug builds.
const POISON: u8 = 0xDB;

/// The memory of one load.
pub struct Ring {
    memory: Mapping,
    block: usize,
    /// Whether free memory stays in place when the ring is closed.
    keeps_memory: bool,
    /// The NUMA node that its pages prefer.
    node: Option<usize>,
    state: Mutex<State>,
    lending: Lending,
    /// Woken whenever a slot is freed and when the ring is closed.
    freed: Notify,
    /// Woken when the high-water mark moves and when the ring is closed.
    grown: Condvar,
}

struct State {
    /// Free ranges by start; neighbours are merged.
    free: BTreeMap<usize, usize>,
    used_bytes: usize,
    slots: usize,
    /// Everything at or above this was never handed out.
    high_water: usize,
    last_freed: Instant,
    closed: bool,
}

/// What is in use, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Slots that are being filled or held by tensors.
    pub slots: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How long ago a slot was last freed (or the ring was made).
    pub since_freed: Duration,
}

impl Ring {
    /// A ring of `capacity` bytes, whose slots start and end at multiples of `block` bytes (a power
    /// of two, at least a page, at most a huge page); the capacity is rounded up to that.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory) when the address space does not allow it.
    pub fn new(capacity: usize, block: usize) -> Result<Arc<Self>> {
        Self::make(capacity, block, false, None)
    }

    /// As [`new`](Self::new), of memory that stays in place as long as the ring lives: for devices
    /// that read it by themselves, from the pages that they were told of once. These prefer the NUMA
    /// node `node`, if the kernel permits it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn keeping_memory(capacity: usize, block: usize, node: Option<usize>) -> Result<Arc<Self>> {
        Self::make(capacity, block, true, node)
    }

    fn make(
        capacity: usize,
        block: usize,
        keeps_memory: bool,
        node: Option<usize>,
    ) -> Result<Arc<Self>> {
        let block = block.clamp(PAGE_BYTES, HUGE_PAGE_BYTES);
        let capacity = capacity.max(1).next_multiple_of(block);
        let state = State {
            free: BTreeMap::from([(0, capacity)]),
            used_bytes: 0,
            slots: 0,
            high_water: 0,
            last_freed: Instant::now(),
            closed: false,
        };
        let memory = Mapping::anonymous(capacity)?;
        if let Some(node) = node
            && let Err(refusal) = memory.prefer_node(node)
        {
            tracing::debug!(%refusal, node, "the ring's pages are of any NUMA node");
        }
        Ok(Arc::new(Self {
            memory,
            block,
            keeps_memory,
            node,
            state: Mutex::new(state),
            lending: Lending::default(),
            freed: Notify::new(),
            grown: Condvar::new(),
        }))
    }

    /// Its size in bytes.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// A slot of at least `len` bytes (rounded up to blocks), or `None` while none fits and once the
    /// ring is closed: what is free then was given back to the kernel.
    pub fn allocate(self: &Arc<Self>, len: usize) -> Option<Slot> {
        let mut state = self.lock();
        let range = state.take(self.rounded(len))?;
        self.hand_out(&mut state, &range);
        drop(state);
        Some(Slot::new(Arc::clone(self), range))
    }

    /// Two slots as [`allocate`](Self::allocate) gives them, or `None` while they do not both fit.
    pub fn allocate_two(self: &Arc<Self>, lens: [usize; 2]) -> Option<[Slot; 2]> {
        let mut state = self.lock();
        let first = state.take(self.rounded(lens[0]))?;
        let Some(second) = state.take(self.rounded(lens[1])) else {
            state.merge_free(first);
            return None;
        };
        self.hand_out(&mut state, &first);
        self.hand_out(&mut state, &second);
        drop(state);
        Some([first, second].map(|range| Slot::new(Arc::clone(self), range)))
    }

    fn rounded(&self, len: usize) -> usize {
        len.max(1).next_multiple_of(self.block)
    }

    /// Counts a range that was taken, and looks whether it is as it was left.
    fn hand_out(&self, state: &mut State, range: &Range<usize>) {
        state.used_bytes += range.len();
        state.slots += 1;
        self.check_poison(range.start..range.end.min(state.high_water));
        if range.end > state.high_water {
            state.high_water = range.end;
            self.grown.notify_all();
        }
        crate::metrics::slots_in_use(state.slots);
    }

    /// Takes a slot's range back. Called by [`Slot`]'s drop alone.
    fn release(&self, range: Range<usize>) {
        self.poison(range.clone());
        let mut state = self.lock();
        state.used_bytes -= range.len();
        state.slots -= 1;
        state.last_freed = Instant::now();
        if state.closed && !self.keeps_memory {
            self.memory.discard(range.clone());
        }
        state.merge_free(range);
        crate::metrics::slots_in_use(state.slots);
        drop(state);
        self.freed.notify_waiters();
    }

    /// Says that no more slots will be asked for: memory freed from now on goes back to the
    /// kernel, what is free now goes at once (unless the ring keeps it), and everyone who waits is woken (each time it is
    /// called: a load that is stopped closes a ring that may be closed already).
    pub fn close(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.closed, true) && !self.keeps_memory {
            self.discard_free(&state);
        }
        drop(state);
        self.freed.notify_waiters();
        self.grown.notify_all();
    }

    /// Opens a closed ring that keeps its memory for the next load; false while slots are in use.
    pub(crate) fn reopen(&self) -> bool {
        let mut state = self.lock();
        let free = self.keeps_memory && state.slots == 0;
        state.closed &= !free;
        free
    }

    /// The NUMA node that its pages prefer.
    pub(crate) fn node(&self) -> Option<usize> {
        self.node
    }

    /// What slots start and end at multiples of, in bytes.
    pub(crate) fn block_bytes(&self) -> usize {
        self.block
    }

    /// Gives what is free and was ever used back to the kernel.
    fn discard_free(&self, state: &State) {
        for (&start, &len) in &state.free {
            let touched = start..(start + len).min(state.high_water);
            if touched.start < touched.end {
                self.check_poison(touched.clone());
                self.memory.discard(touched);
            }
        }
    }

    /// Resolves when a slot is freed; create it before looking, so that nothing is missed.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let state = self.lock();
        Usage {
            slots: state.slots,
            bytes: state.used_bytes,
            since_freed: state.last_freed.elapsed(),
        }
    }

    /// Faults memory in ahead of the reads, so that engines do not stop to zero pages: keeps
    /// `ahead` bytes beyond the highest slot populated, and returns when the ring is closed or
    /// fully populated. Meant for a thread of its own.
    ///
    /// Slots that are given out already are left to the reads into them: two threads that fault
    /// in the same huge page zero it twice, and one of them for nothing.
    pub fn populate_ahead(&self, ahead: usize) {
        const STEP_BYTES: usize = 2 * HUGE_PAGE_BYTES;
        let mut done = 0_usize;
        // Anything less than one byte more would not wait at all once `ahead` is populated.
        while let Some(high_water) = self.wait_for_growth((done + 1).saturating_sub(ahead)) {
            done = done.max(high_water.next_multiple_of(HUGE_PAGE_BYTES));
            let end = (done + STEP_BYTES).min(self.capacity());
            // An error is an old kernel, or no memory: then the reads fault pages in themselves.
            if done >= end || self.memory.populate_write(done..end).is_err() {
                return;
            }
            done = end;
        }
    }

    /// Faults the first `len` bytes in from `threads` threads.
    ///
    /// # Errors
    /// As [`Mapping::populate_write`].
    pub fn populate(&self, len: usize, threads: usize) -> std::io::Result<()> {
        let share = len.div_ceil(threads.max(1)).next_multiple_of(HUGE_PAGE_BYTES);
        let part = |i: usize| (i * share).min(len)..((i + 1) * share).min(len);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                .map(|i| scope.spawn(move || self.memory.populate_write(part(i))))
                .collect();
            let first = self.memory.populate_write(part(0));
            others.into_iter().fold(first, |so_far, other| {
                so_far.and(other.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())))
            })
        })
    }

    /// The whole mapping as (address, bytes), for registration with io_uring.
    pub(crate) fn region(&self) -> (usize, usize) {
        (self.memory.start().as_ptr() as usize, self.memory.len())
    }

    /// Waits until the high-water mark is at least `mark`; `None` once the ring is closed.
    fn wait_for_growth(&self, mark: usize) -> Option<usize> {
        let mut state = self.lock();
        while state.high_water < mark && !state.closed {
            state = self.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.closed).then_some(state.high_water)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between statements, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poison(&self, range: Range<usize>) {
        if cfg!(debug_assertions) {
            // SAFETY: called by `release` for a range whose slot is gone and which is not yet free,
            // so nobody else has access to it.
            #[allow(unsafe_code)]
            unsafe {
                self.memory.start().add(range.start).write_bytes(POISON, range.len());
            }
        }
    }

    fn check_poison(&self, range: Range<usize>) {
        if cfg!(debug_assertions) && !range.is_empty() {
            // SAFETY: called under the lock for a free range; nobody else has access to it.
            #[allow(unsafe_code)]
            let bytes = unsafe { self.memory.bytes(range) };
            assert!(
                // Whole pages; comparing pages is fast in debug builds too.
                bytes.chunks(PAGE_BYTES).all(|page| page == [POISON; PAGE_BYTES]),
                "memory was written to after its slot was returned"
            );
        }
    }
}

impl State {
    /// Takes the lowest free range of `len` bytes; none once the ring is closed.
    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        if self.closed {
            return None;
        }
        let (&start, &free) = self.free.iter().find(|&(_, &free)| free >= len)?;
        self.free.remove(&start);
        if free > len {
            self.free.insert(start + len, free - len);
        }
        Some(start..start + len)
    }

    fn merge_free(&mut self, range: Range<usize>) {
        let Range { mut start, mut end } = range;
        if let Some(len) = self.free.remove(&end) {
            end += len;
        }
        if let Some((&before, &len)) = self.free.range(..start).next_back()
            && before + len == start
        {
            self.free.remove(&before);
            start = before;
        }
        self.free.insert(start, end - start);
    }
}

#[cfg(test)]
mod tests;
