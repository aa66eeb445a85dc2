//! Allocating ranges of the ring's mapping.

use super::lending::Lending;
use super::memory::{HUGE_PAGE_BYTES, Mapping, PAGE_BYTES};
use crate::error::Result;
use crate::sync::{Condvar, Mutex};
use crate::sys::spawn_scoped;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Released memory is filled with this byte in debug builds.
pub(super) const POISON: u8 = 0xDB;

/// The memory of one load.
pub struct Ring {
    pub(super) memory: Mapping,
    block: usize,
    /// Whether free memory is kept when the ring is closed.
    keeps_memory: bool,
    /// The NUMA node on which pages are allocated if possible.
    node: Option<usize>,
    pub(super) state: Mutex<RingState>,
    pub(super) lending: Lending,
    /// All are notified whenever a slot is freed and when the ring is closed.
    freed: Notify,
    /// One is notified whenever a slot is freed, and all when the ring is closed.
    freed_for_one: Notify,
    /// Notified when the high-water mark moves and when the ring is closed.
    grown: Condvar,
}

pub(super) struct RingState {
    /// The lengths of free ranges by their starts; neighbours are merged.
    pub free: BTreeMap<usize, usize>,
    used_bytes: usize,
    slots: usize,
    /// No byte from here on was ever allocated.
    pub high_water: usize,
    last_freed: Instant,
    closed: bool,
    /// Whether a closed ring keeps its memory, as another load will use it.
    paused: bool,
    /// Whether free memory may have been returned to the kernel, after which it is zero.
    has_discarded: bool,
}

/// The allocations of a ring at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingUsage {
    /// The number of slots that are being filled or held by tensors.
    pub slots: usize,
    /// The bytes of these slots.
    pub bytes: usize,
    /// When a slot was last freed (or the ring was created).
    pub last_freed: Instant,
}

impl Ring {
    /// A ring of `capacity` bytes whose slots start and end at multiples of `block` bytes. The
    /// block is a power of two, at least a page and at most a huge page; the capacity is rounded up
    /// to a multiple of it.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory) when the address space is too small.
    pub fn new(capacity: usize, block: usize) -> Result<Arc<Self>> {
        Self::make(capacity, block, false, None)
    }

    /// As [`new`](Self::new), for devices that read the memory by DMA: the pages stay mapped as
    /// long as the ring lives. They are allocated on the NUMA node `node`, if the kernel permits
    /// it.
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
        let state = RingState {
            free: BTreeMap::from([(0, capacity)]),
            used_bytes: 0,
            slots: 0,
            high_water: 0,
            last_freed: Instant::now(),
            closed: false,
            paused: false,
            has_discarded: false,
        };
        let memory = Mapping::anonymous(capacity)?;
        if let Some(node) = node
            && let Err(refusal) = memory.prefer_node(node)
        {
            tracing::debug!(%refusal, node, "the ring's pages may be on any NUMA node");
        }
        Ok(Arc::new(Self {
            memory,
            block,
            keeps_memory,
            node,
            state: Mutex::new(state),
            lending: Lending::default(),
            freed: Notify::new(),
            freed_for_one: Notify::new(),
            grown: Condvar::new(),
        }))
    }

    /// The size of the ring in bytes.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Takes ranges of at least these lengths, rounded up to blocks. Returns `None` and takes
    /// nothing if they do not all fit.
    /// Searches from the offset `near` on, and then from the start.
    pub(super) fn take<const N: usize>(
        &self,
        lens: [usize; N],
        near: usize,
    ) -> Option<[Range<usize>; N]> {
        let near = near / self.block * self.block;
        let mut state = self.state.lock();
        let mut taken = [const { 0..0 }; N];
        for (number, len) in lens.into_iter().enumerate() {
            let Some(range) = state.take(len.max(1).next_multiple_of(self.block), near) else {
                taken.into_iter().take(number).for_each(|range| state.merge_free(range));
                return None;
            };
            taken[number] = range;
        }
        taken.iter().for_each(|range| self.record_taken(&mut state, range));
        Some(taken)
    }

    /// Counts a range that was taken, and checks its poison.
    fn record_taken(&self, state: &mut RingState, range: &Range<usize>) {
        state.used_bytes += range.len();
        state.slots += 1;
        if range.start > state.high_water {
            self.poison(state.high_water..range.start);
        }
        self.check_poison(state, range.start..range.end.min(state.high_water));
        if range.end > state.high_water {
            state.high_water = range.end;
            self.grown.notify_all();
        }
        crate::metrics::slots_in_use(state.slots);
    }

    /// Frees the range of a slot that is being dropped.
    pub(super) fn release(&self, range: Range<usize>) {
        self.poison(range.clone());
        let mut state = self.state.lock();
        state.used_bytes -= range.len();
        state.slots -= 1;
        state.last_freed = Instant::now();
        if state.closed && !state.paused && !self.keeps_memory {
            self.memory.discard(range.clone());
        }
        state.merge_free(range);
        crate::metrics::slots_in_use(state.slots);
        drop(state);
        self.freed.notify_waiters();
        self.freed_for_one.notify_one();
    }

    /// Ends allocation. Memory that is free now or freed later is returned to the kernel, unless
    /// the ring keeps its memory. Each call wakes all waiters, as a cancelled load may close a ring
    /// that is closed already.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.closed, true) && !self.keeps_memory {
            self.discard_free(&state);
        }
        drop(state);
        self.notify_closed();
    }

    /// Wakes all that wait for a closed ring.
    fn notify_closed(&self) {
        self.freed.notify_waiters();
        self.freed_for_one.notify_waiters();
        self.grown.notify_all();
    }

    /// Reopens a closed ring that keeps its memory, for the next load. Returns false while slots are in
    /// use.
    pub(crate) fn reopen(&self) -> bool {
        let mut state = self.state.lock();
        let free = self.keeps_memory && state.slots == 0;
        state.closed &= !free;
        free
    }

    /// Ends allocation as [`close`](Self::close) does until the ring is [resumed](Self::resume), and
    /// keeps the memory.
    pub(crate) fn pause(&self) {
        let mut state = self.state.lock();
        (state.closed, state.paused) = (true, true);
        drop(state);
        self.notify_closed();
    }

    /// Reopens a closed ring, of which slots may be in use, for another load of the same caller.
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock();
        (state.closed, state.paused) = (false, false);
        state.has_discarded = true;
    }

    /// The length in bytes of the longest range that is free.
    pub(crate) fn longest_free_bytes(&self) -> usize {
        self.state.lock().free.values().max().copied().unwrap_or(0)
    }

    /// The NUMA node on which the ring's pages are allocated if possible.
    pub(crate) fn node(&self) -> Option<usize> {
        self.node
    }

    /// The block size in bytes: slots start and end at multiples of it.
    pub(crate) fn block_bytes(&self) -> usize {
        self.block
    }

    /// Returns free memory to the kernel, up to the high-water mark.
    fn discard_free(&self, state: &RingState) {
        for (&start, &len) in &state.free {
            let touched = start..(start + len).min(state.high_water);
            if touched.start < touched.end {
                self.check_poison(state, touched.clone());
                self.memory.discard(touched);
            }
        }
    }

    /// Resolves when a slot is freed or the ring is closed. Create it before trying to allocate, so
    /// that no event is missed.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// As [`freed`](Self::freed), for those who take whatever slot is next: each slot that is freed wakes one
    /// of them, as it is of no use to the others. It may have room for more than one, so who was woken calls
    /// [`wake_another`](Self::wake_another) when it goes on.
    pub fn freed_for_one(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed_for_one.notified()
    }

    /// Wakes another one that waits for [`freed_for_one`](Self::freed_for_one), if memory is free.
    pub fn wake_another(&self) {
        if self.longest_free_bytes() > 0 {
            self.freed_for_one.notify_one();
        }
    }

    /// The present allocations.
    pub fn usage(&self) -> RingUsage {
        let state = self.state.lock();
        RingUsage { slots: state.slots, bytes: state.used_bytes, last_freed: state.last_freed }
    }

    /// Faults memory in ahead of the reads, so that reads do not wait for pages to be zeroed. Keeps
    /// `ahead` bytes beyond the highest slot populated, and returns when the ring is closed or
    /// fully populated, so it needs a thread of its own.
    ///
    /// Allocated slots are left to the reads into them: when two threads fault in the same huge page,
    /// both zero it.
    pub fn populate_ahead(&self, ahead: usize) {
        const STEP_BYTES: usize = 2 * HUGE_PAGE_BYTES;
        let mut done = 0_usize;
        // Waits for at least one byte of growth: else it would spin once `ahead` is populated.
        while let Some(high_water) = self.wait_for_growth((done + 1).saturating_sub(ahead)) {
            done = done.max(high_water.next_multiple_of(HUGE_PAGE_BYTES));
            let end = (done + STEP_BYTES).min(self.capacity());
            // On an old kernel, or when memory is short, the reads fault pages in themselves.
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
            let (mut here, mut others) = (vec![0], Vec::new());
            for i in 1..threads {
                let populate = move || self.memory.populate_write(part(i));
                match spawn_scoped(scope, "ringload-memory", populate) {
                    Ok(thread) => others.push(thread),
                    Err(_) => here.push(i),
                }
            }
            let populated = here.into_iter().try_for_each(|i| self.memory.populate_write(part(i)));
            others.into_iter().fold(populated, |so_far, other| {
                so_far.and(other.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())))
            })
        })
    }

    /// The address and length of the mapping in bytes, for registration with io_uring.
    pub(crate) fn region(&self) -> (usize, usize) {
        (self.memory.start().as_ptr() as usize, self.memory.len())
    }

    /// Waits until the high-water mark is at least `mark`; `None` once the ring is closed.
    fn wait_for_growth(&self, mark: usize) -> Option<usize> {
        let mut state = self.state.lock();
        while state.high_water < mark && !state.closed {
            state = self.grown.wait(state);
        }
        (!state.closed).then_some(state.high_water)
    }

    fn poison(&self, range: Range<usize>) {
        if cfg!(debug_assertions) {
            // SAFETY: called for a range whose slot is gone and which is not yet free, and under the lock
            // for one that is free and never was a slot; nobody else has access to it.
            unsafe {
                self.memory.start().add(range.start).write_bytes(POISON, range.len());
            }
        }
    }

    fn check_poison(&self, state: &RingState, range: Range<usize>) {
        if cfg!(debug_assertions) && !range.is_empty() {
            // SAFETY: called under the lock for a free range; nobody else has access to it.
            let bytes = unsafe { self.memory.bytes(range) };
            assert!(
                // Whole pages; comparing pages is fast in debug builds too.
                bytes.chunks(PAGE_BYTES).all(|page| {
                    page == [POISON; PAGE_BYTES] || state.has_discarded && page == [0; PAGE_BYTES]
                }),
                "memory was written to after its slot was returned"
            );
        }
    }
}

impl RingState {
    /// Takes the first free range of `len` bytes from `near` on, or else the lowest; none once the ring
    /// is closed.
    fn take(&mut self, len: usize, near: usize) -> Option<Range<usize>> {
        if self.closed {
            return None;
        }
        let fits = |&(_, &free): &(&usize, &usize)| free >= len;
        let around = self.free.range(..near).next_back();
        let around = around.filter(|&(&start, &free)| start + free >= near + len);
        let mut found = around.or_else(|| self.free.range(near..).find(fits));
        found = found.or_else(|| self.free.range(..near).find(fits));
        let (&start, &free) = found?;
        let taken = start.max(if around.is_some() { near } else { 0 });
        self.free.remove(&start);
        if taken > start {
            self.free.insert(start, taken - start);
        }
        if start + free > taken + len {
            self.free.insert(taken + len, start + free - taken - len);
        }
        Some(taken..taken + len)
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
