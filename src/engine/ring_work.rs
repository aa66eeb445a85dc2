//! The work of a load: hands out the reads of the plan's extents as slots become free.
//!
//! **Files.** An extent is cut into reads when it gets its slot.
//!
//! **Objects.** An extent is cut into ranges before it has a slot, and the ranges are requested. When
//! the first answer for the extent, or for a later one, has come, the extent is *bound*: it gets its
//! slot. So a ring has room for bodies, and none is taken for the time to the first byte. An answer
//! whose extent does not fit the ring yet waits, with its head read.
//!
//! ```text
//! extents:   | bound: have slots    | requested: await answers   | not begun  |
//!            0                 next_bound                  next_extent      len
//! ```
//!
//! Extents get their slots strictly in plan order. The next extent waits until its slot fits, even if
//! a later one is smaller and would fit. So a large tensor is never starved, and as the ring holds any
//! single extent, a consumer that drops its tensors always makes progress. Slots that are on their way
//! to a GPU are returned by its device transfer.
//!
//! An extent whose tensors are packed or cast gets two slots at once. The read task that completes the
//! last read copies from the first slot to the second, which becomes the tensors' storage. The first
//! slot is then free again.
//!
//! Where the caller may retain all memory and holds all of a host ring, the load goes on in a new
//! ring. The memory of the old ring is unmapped when its last tensor is dropped.

use super::destination::Destination;
use super::gather::{GatherWork, copy_extent};
use super::queue::Completion;
use super::ring_work_state::{RequestedExtent, RingWorkState};
use super::work::{ChunkRead, ChunkRequest, NextStep, Work};
use crate::checks::FiniteCheck;
use crate::error::Result;
use crate::options::Device;
use crate::plan::{Chunk, ChunkSize, Extent, Plan, chunk_ends, even_ends};
use crate::ring::{FullSlot, Ring, Slot, Window};
use crate::source::Source;
use crate::sync::Mutex;
use crate::tensor::{LoadedTensors, Offsets, Storage};
use crate::timeline::{Recorder, SlotUse, Stage};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct RingWork {
    extents: Arc<[Extent]>,
    sources: Vec<Arc<dyn Source>>,
    destinations: Vec<Destination>,
    chunks: ChunkSize,
    state: Mutex<RingWorkState>,
    recorder: Option<Arc<Recorder>>,
    finite: Option<Arc<FiniteCheck>>,
    gather: Option<GatherWork>,
    /// The plan of the extents, if some are packed or cast.
    plan: Option<Arc<Plan>>,
    first_part_list: usize,
    /// The number of engines that read into the rings of GPUs.
    engines: usize,
    /// Windows of bound extents whose answers have not come.
    unread_windows: AtomicUsize,
}

impl RingWork {
    /// Extents refer to their source and their destination by index. The `recorder`, if there is
    /// one, records the use of the slots.
    pub fn new(
        extents: Arc<[Extent]>,
        sources: Vec<Arc<dyn Source>>,
        destinations: Vec<Destination>,
        chunks: ChunkSize,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        let left_bytes = extents.iter().map(Extent::len_bytes).sum();
        let state = Mutex::new(RingWorkState { left_bytes, ..RingWorkState::default() });
        Self {
            extents,
            sources,
            destinations,
            chunks,
            state,
            recorder,
            finite: None,
            gather: None,
            plan: None,
            first_part_list: 0,
            engines: 1,
            unread_windows: AtomicUsize::new(0),
        }
    }

    /// This work, which gives the bytes of full slots to `finite`.
    pub fn checked_by(self, finite: Option<Arc<FiniteCheck>>) -> Self {
        Self { finite, ..self }
    }

    /// This work, which is done by so many engines.
    pub fn of_engines(self, engines: usize) -> Self {
        Self { engines, ..self }
    }

    /// This work, which gathers parts of tensors for the host.
    pub fn gathering(self, gather: Option<GatherWork>) -> Self {
        Self { gather, ..self }
    }

    /// This work, which packs and casts tensors of `plan` for the host.
    pub fn packing(self, plan: Arc<Plan>) -> Self {
        Self { plan: Some(plan), ..self }
    }

    /// What gathers the part that `extent` is a piece of, if it is gathered in host memory.
    fn gather_of(&self, extent: &Extent) -> Option<&GatherWork> {
        let is_host = self.destinations[extent.destination()].transfer.is_none();
        self.gather.as_ref().filter(|_| is_host && extent.is_gathered())
    }

    /// This work, whose first source has the list `first` of the parts to check.
    pub fn with_part_lists_from(self, first: usize) -> Self {
        Self { first_part_list: first, ..self }
    }

    fn block_bytes(&self, extent: &Extent) -> usize {
        self.sources[extent.shard()].block_bytes()
    }

    /// The ends of the reads of an extent, relative to its slot's start.
    fn ends(&self, state: &mut RingWorkState, extent: &Extent) -> Vec<usize> {
        let memory_bytes = self.ring(state, extent.destination()).capacity() as u64;
        let source = &*self.sources[extent.shard()];
        let chunk_bytes = self.chunks.of(source, memory_bytes, state.left_bytes);
        state.left_bytes -= extent.len_bytes();
        let block = self.block_bytes(extent);
        let start = extent.slot_offset_bytes(block);
        match source.connections() {
            Some(_) => even_ends(extent.slot_len_bytes(block), chunk_bytes, block as u64),
            None => chunk_ends(start, extent.slot_len_bytes(block), chunk_bytes),
        }
    }

    /// The range of read `number` of an extent with these `ends`.
    fn chunk(&self, extent: &Extent, ends: &[usize], number: usize) -> Chunk {
        let start = extent.slot_offset_bytes(self.block_bytes(extent));
        let wanted = (extent.end_bytes() - start) as usize;
        let from = number.checked_sub(1).map_or(0, |before| ends[before]);
        Chunk { offset_bytes: start + from as u64, want_bytes: ends[number].min(wanted) - from }
    }

    /// The read of a `chunk` of extent `index`.
    fn chunk_read(&self, index: usize, chunk: Chunk, window: Window) -> ChunkRead {
        let extent = &self.extents[index];
        ChunkRead {
            source: extent.shard(),
            chunk,
            window,
            lead_bytes: extent.offset_bytes().saturating_sub(chunk.offset_bytes) as usize,
            part_list: self.first_part_list + extent.shard(),
            ticket: index,
        }
    }

    /// The reads that fill `slot` for extent `index`.
    fn chunk_reads(&self, index: usize, ends: &[usize], slot: Slot) -> VecDeque<ChunkRead> {
        let extent = &self.extents[index];
        let windows = slot.into_windows(ends).into_iter().enumerate();
        let read =
            |(number, window)| self.chunk_read(index, self.chunk(extent, ends, number), window);
        windows.map(read).collect()
    }

    /// Allocates the slot of the next extent that has none, and that of its copy. Returns what to wait
    /// for if they do not fit.
    fn allocate(&self, state: &mut RingWorkState, engine: usize) -> Result<Slot, NextStep> {
        let index = state.next_bound;
        let extent = &self.extents[index];
        let ring = Arc::clone(self.ring(state, extent.destination()));
        let len = extent.slot_len_bytes(self.block_bytes(extent)) as usize;
        let copy_len = extent.copied_bytes() as usize;
        let traced = |slot| self.traced(slot, engine, extent, Stage::Casting);
        let slots = match (self.gather_of(extent), copy_len) {
            (Some(gather), _) => Some((None, gather.allocate(index, &ring, len, &traced)?)),
            (_, 0) => {
                let near = self.share_of(engine, &ring, extent, len);
                ring.allocate_near(len, near).map(|slot| (None, slot))
            }
            _ => ring.allocate_two([copy_len, len]).map(|[copy, slot]| (Some(copy), slot)),
        };
        let (copy_slot, slot) = slots.ok_or(NextStep::Wait { ring, need: copy_len + len })?;
        state.copy_slots.extend(copy_slot.map(|slot| (index, traced(slot))));
        state.next_bound += 1;
        Ok(self.traced(slot, engine, extent, Stage::Reading))
    }

    /// Where the part of `ring` begins that `engine` prefers for a slot of `len` bytes for `extent`. An
    /// engine that writes to slots that it has written to before finds more of them in its cache. Two have
    /// to fit; tensors that stay in the ring leave no slots to write to again.
    fn share_of(&self, engine: usize, ring: &Ring, extent: &Extent, len: usize) -> usize {
        let share = ring.capacity() / self.engines.max(1);
        let passes = self.destinations[extent.destination()].transfer.is_some();
        if passes && share >= 2 * len { engine * share } else { 0 }
    }

    /// Binds the next extent that was requested.
    fn bind_next(&self, state: &mut RingWorkState, engine: usize) -> Result<(), NextStep> {
        let index = state.next_bound;
        if self.extents[index].len_bytes() == 0 {
            state.next_bound += 1;
            return Ok(());
        }
        let slot = self.allocate(state, engine)?;
        if let Some(requested) = state.requested.get_mut(&index) {
            let windows = slot.into_windows(&requested.ends);
            self.unread_windows.fetch_add(windows.len(), Ordering::AcqRel);
            requested.windows = Some(windows.into_iter().map(Some).collect());
        }
        Ok(())
    }

    /// Cuts extent `index` into ranges, of which it returns the first.
    fn begin_requests(&self, state: &mut RingWorkState, index: usize) -> Option<ChunkRequest> {
        let extent = &self.extents[index];
        let ends = self.ends(state, extent);
        let request = |number| ChunkRequest {
            source: extent.shard(),
            chunk: self.chunk(extent, &ends, number),
            extent: index,
            number,
        };
        state.ranges = (0..ends.len()).map(request).collect();
        state.requested.insert(index, RequestedExtent { ends, windows: None });
        state.next_extent += 1;
        state.ranges.pop_front()
    }

    /// Ends allocation if all extents have their slots.
    fn close_rings(&self, state: &mut RingWorkState) {
        let is_empty = |index: usize| self.extents[index].len_bytes() == 0;
        while state.next_bound < state.next_extent && is_empty(state.next_bound) {
            state.next_bound += 1;
        }
        if state.next_bound < self.extents.len() {
            return;
        }
        state.replacement.iter().for_each(|ring| ring.close());
        self.gather.iter().for_each(|gather| gather.ring().close());
        self.destinations.iter().for_each(|destination| destination.ring.close());
    }

    /// Hands the full slot of extent `index` to its destination. Returns the extent's tensors if
    /// they stay in host memory.
    fn deliver(&self, index: usize, full: FullSlot) -> Option<Completion> {
        let extent = &self.extents[index];
        if let Some(transfer) = &self.destinations[extent.destination()].transfer {
            transfer.submit(index, full);
            return None;
        }
        let from = extent.slot_offset_bytes(self.block_bytes(extent));
        if let Some(gather) = self.gather_of(extent) {
            return gather.take(index, &full, (extent.offset_bytes() - from) as usize);
        }
        let copy_slot = self.state.lock().copy_slots.remove(&index);
        let (full, starts) = match (copy_slot, &self.plan) {
            (Some(copy_slot), Some(plan)) => {
                let start = (extent.offset_bytes() - from) as usize;
                let source = full.bytes(start..start + extent.len_bytes() as usize);
                full.enter(Stage::Casting);
                copy_extent(plan, extent, source, copy_slot)?
            }
            _ => (full, Offsets::Shard(from)),
        };
        full.enter(Stage::Held);
        let (positions, storage) = (extent.positions(), Storage::from_slot(full));
        Some(Completion::Tensors(LoadedTensors { positions, storage, starts }))
    }

    /// Adds a trace span to the slot where the load has a timeline.
    fn traced(&self, slot: Slot, engine: usize, extent: &Extent, stage: Stage) -> Slot {
        let Some(recorder) = &self.recorder else { return slot };
        let span = recorder.slot(SlotUse {
            engine,
            shard: extent.shard(),
            offset_bytes: extent.slot_offset_bytes(self.block_bytes(extent)),
            bytes: slot.len() as u64,
            stage,
        });
        slot.traced(span)
    }

    /// The ring that currently provides slots for the destination of this index.
    fn ring<'a>(&'a self, state: &'a RingWorkState, destination: usize) -> &'a Arc<Ring> {
        let Destination { ring, transfer } = &self.destinations[destination];
        match (&state.replacement, transfer) {
            (Some(replacement), None) => replacement,
            _ => ring,
        }
    }

    /// The tensors of an extent without bytes, which need no read.
    fn empty_tensors(&self, extent: &Extent) -> Completion {
        let transfer = self.destinations[extent.destination()].transfer.as_ref();
        let device = transfer.map_or(Device::Host, |transfer| transfer.device());
        Completion::Tensors(LoadedTensors::empty(extent.positions(), device))
    }
}

impl Work for RingWork {
    fn next(&self, engine: usize) -> NextStep {
        let mut state = self.state.lock();
        if let Some(read) = state.reads.pop_front() {
            return NextStep::Read(read);
        }
        if let Some(request) = state.ranges.pop_front() {
            return NextStep::Request(request);
        }
        let index = state.next_extent;
        let Some(extent) = self.extents.get(index) else {
            self.close_rings(&mut state);
            return NextStep::Finished;
        };
        if extent.len_bytes() == 0 {
            state.next_extent += 1;
            return NextStep::Deliver(self.empty_tensors(extent));
        }
        if self.sources[extent.shard()].connections().is_some() {
            let first = self.begin_requests(&mut state, index);
            return first.map_or(NextStep::Finished, NextStep::Request);
        }
        while state.next_bound < index {
            if let Err(wait) = self.bind_next(&mut state, engine) {
                return wait;
            }
        }
        let slot = match self.allocate(&mut state, engine) {
            Ok(slot) => slot,
            Err(wait) => return wait,
        };
        let ends = self.ends(&mut state, extent);
        state.next_extent += 1;
        state.reads = self.chunk_reads(index, &ends, slot);
        // An extent with bytes has at least one read.
        state.reads.pop_front().map_or(NextStep::Finished, NextStep::Read)
    }

    fn bind(&self, engine: usize, request: ChunkRequest) -> NextStep {
        let ChunkRequest { chunk, extent: index, number, .. } = request;
        let mut state = self.state.lock();
        while state.next_bound <= index {
            if let Err(wait) = self.bind_next(&mut state, engine) {
                return wait;
            }
        }
        self.close_rings(&mut state);
        let Some(requested) = state.requested.get_mut(&index) else { return NextStep::Finished };
        let window = requested.windows.iter_mut().flatten().nth(number).and_then(Option::take);
        if requested.windows.iter().flatten().all(Option::is_none) {
            state.requested.remove(&index);
        }
        let Some(window) = window else { return NextStep::Finished };
        self.unread_windows.fetch_sub(1, Ordering::AcqRel);
        NextStep::Read(self.chunk_read(index, chunk, window))
    }

    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Completion>> {
        let Some(full) = window.complete() else {
            return Ok(None);
        };
        let extent = &self.extents[ticket];
        self.sources[extent.shard()].check_unchanged()?;
        if let Some(finite) = &self.finite {
            let from = extent.slot_offset_bytes(self.block_bytes(extent));
            let start = (extent.offset_bytes() - from) as usize;
            finite.add(extent, full.bytes(start..start + extent.len_bytes() as usize));
        }
        Ok(self.deliver(ticket, full))
    }

    fn in_transfer(&self) -> usize {
        let transfers = self.destinations.iter().filter_map(|to| to.transfer.as_ref());
        let copying: usize = transfers.map(|transfer| transfer.in_flight()).sum();
        copying + self.unread_windows.load(Ordering::Acquire)
    }

    fn replace_ring(&self, ring: &Arc<Ring>) -> Result<bool> {
        let mut state = self.state.lock();
        let Some(host) = self.destinations.iter().find(|to| to.transfer.is_none()) else {
            return Ok(false);
        };
        let current = state.replacement.as_ref().unwrap_or(&host.ring);
        if !Arc::ptr_eq(current, ring) {
            // Either the ring is a GPU's, or another read task has replaced it already.
            let is_gpu = |to: &Destination| to.transfer.is_some() && Arc::ptr_eq(&to.ring, ring);
            return Ok(!self.destinations.iter().any(is_gpu));
        }
        let new = Ring::new(ring.capacity(), ring.block_bytes())?;
        ring.close(); // wakes the read tasks that wait for it
        state.replacement = Some(new);
        Ok(true)
    }
}
