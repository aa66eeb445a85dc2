//! The work of a load: hands out the reads of the plan's extents as slots become free.
//!
//! Extents get their slots strictly in plan order. The next extent waits until its slot fits, even if
//! a later one is smaller and would fit. So a large tensor is never starved, and as the ring holds any
//! single extent, a consumer that drops its tensors always makes progress. Slots that are on their way
//! to a GPU are returned by its device transfer.
//!
//! An extent whose tensors are cast gets two slots at once. The read task that completes the last
//! read casts from the first slot into the second, which becomes the tensors' storage. The first
//! slot is then free again.
//!
//! Where the caller may retain all memory and holds all of a host ring, the load goes on in a new
//! ring. The memory of the old ring is unmapped when its last tensor is dropped.

use super::queue::Completion;
use super::work::{ChunkRead, NextStep, Work};
use crate::cast::Cast;
use crate::checks::FiniteCheck;
use crate::device::DeviceTransfer;
use crate::error::Result;
use crate::options::Device;
use crate::plan::{Chunk, Extent, chunk_ends};
use crate::ring::{FullSlot, Ring, Slot, Window};
use crate::source::Source;
use crate::sync::Mutex;
use crate::tensor::{LoadedTensors, Offsets, Storage};
use crate::timeline::{Recorder, SlotUse, Stage};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(crate) struct RingWork {
    extents: Arc<[Extent]>,
    sources: Vec<Arc<dyn Source>>,
    destinations: Vec<Destination>,
    chunk_bytes: u64,
    state: Mutex<RingWorkState>,
    recorder: Option<Arc<Recorder>>,
    finite: Option<Arc<FiniteCheck>>,
    first_part_list: usize,
}

/// Where the slots of an extent come from, and where full ones go.
pub(crate) struct Destination {
    pub ring: Arc<Ring>,
    /// `None` for the host, where the slot is the tensors' storage.
    pub transfer: Option<Arc<dyn DeviceTransfer>>,
}

#[derive(Default)]
struct RingWorkState {
    next_extent: usize,
    /// Reads of the extent that got its slot last.
    reads: VecDeque<ChunkRead>,
    /// The slots that extents which are being read will be cast into, by the extents' indices.
    cast_slots: HashMap<usize, Slot>,
    /// Used instead of the host's ring once the caller has retained all of it.
    replacement: Option<Arc<Ring>>,
}

impl RingWork {
    /// Extents refer to their source and their destination by index. `chunk_bytes` is a multiple of
    /// every source's block. The `recorder`, if there is one, records the use of the slots.
    pub fn new(
        extents: Arc<[Extent]>,
        sources: Vec<Arc<dyn Source>>,
        destinations: Vec<Destination>,
        chunk_bytes: u64,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        let state = Mutex::default();
        let (finite, first_part_list) = (None, 0);
        Self {
            extents,
            sources,
            destinations,
            chunk_bytes,
            state,
            recorder,
            finite,
            first_part_list,
        }
    }

    /// This work, which gives the bytes of full slots to `finite`.
    pub fn checked_by(self, finite: Option<Arc<FiniteCheck>>) -> Self {
        Self { finite, ..self }
    }

    /// This work, whose first source has the list `first` of the parts to check.
    pub fn with_part_lists_from(self, first: usize) -> Self {
        Self { first_part_list: first, ..self }
    }

    fn block_bytes(&self, extent: &Extent) -> usize {
        self.sources[extent.shard()].block_bytes()
    }

    /// The reads that fill `slot` for extent `index`.
    fn chunk_reads(&self, index: usize, extent: &Extent, slot: Slot) -> VecDeque<ChunkRead> {
        let block = self.block_bytes(extent);
        let start = extent.slot_offset_bytes(block);
        let ends = chunk_ends(start, extent.slot_len_bytes(block), self.chunk_bytes);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let wanted = (extent.end_bytes() - start) as usize;
        let windows = slot.into_windows(&ends);
        std::iter::zip(starts.zip(&ends), windows)
            .map(|((from, &to), window)| ChunkRead {
                source: extent.shard(),
                chunk: Chunk {
                    offset_bytes: start + from as u64,
                    want_bytes: to.min(wanted) - from,
                },
                window,
                lead_bytes: (extent.offset_bytes() - start).saturating_sub(from as u64) as usize,
                part_list: self.first_part_list + extent.shard(),
                ticket: index,
            })
            .collect()
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
        let cast_slot = self.state.lock().cast_slots.remove(&index);
        let (storage, starts) = match (extent.cast(), cast_slot) {
            (Some(cast), Some(cast_slot)) => {
                let start = (extent.offset_bytes() - from) as usize;
                let source = full.bytes(start..start + extent.len_bytes() as usize);
                full.enter(Stage::Casting);
                let storage = cast_into(cast_slot, extent.cast_bytes(), cast, source);
                (storage, Offsets::Cast(extent.offset_bytes(), cast))
            }
            _ => (Some(full), Offsets::Shard(from)),
        };
        storage.iter().for_each(|slot| slot.enter(Stage::Held));
        let storage = storage.map_or(Storage::empty(Device::Host), Storage::from_slot);
        let positions = extent.positions();
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

/// Casts `source` into the first `len_bytes` of `slot`.
fn cast_into(slot: Slot, len_bytes: u64, cast: Cast, source: &[u8]) -> Option<FullSlot> {
    let mut window = slot.into_windows(&[len_bytes as usize]).pop()?;
    cast.run(source, window.unfilled_mut());
    window.complete()
}

impl Work for RingWork {
    fn next(&self, engine: usize) -> NextStep {
        let mut state = self.state.lock();
        if let Some(read) = state.reads.pop_front() {
            return NextStep::Read(read);
        }
        let index = state.next_extent;
        let Some(extent) = self.extents.get(index) else {
            state.replacement.iter().for_each(|ring| ring.close());
            drop(state);
            self.destinations.iter().for_each(|destination| destination.ring.close());
            return NextStep::Finished;
        };
        if extent.len_bytes() == 0 {
            state.next_extent += 1;
            return NextStep::Deliver(self.empty_tensors(extent));
        }
        let ring = Arc::clone(self.ring(&state, extent.destination()));
        let len = extent.slot_len_bytes(self.block_bytes(extent)) as usize;
        let cast_len = extent.cast_bytes() as usize;
        let slots = match cast_len {
            0 => ring.allocate(len).map(|slot| (None, slot)),
            _ => ring.allocate_two([cast_len, len]).map(|[cast, slot]| (Some(cast), slot)),
        };
        let need = cast_len + len;
        let Some((cast_slot, slot)) = slots else {
            return NextStep::Wait { ring, need };
        };
        let slot = self.traced(slot, engine, extent, Stage::Reading);
        let cast_slot = cast_slot.map(|slot| self.traced(slot, engine, extent, Stage::Casting));
        state.cast_slots.extend(cast_slot.map(|slot| (index, slot)));
        state.next_extent += 1;
        state.reads = self.chunk_reads(index, extent, slot);
        match state.reads.pop_front() {
            Some(read) => NextStep::Read(read),
            // Unreachable: an extent with bytes has at least one read.
            None => NextStep::Wait { ring, need },
        }
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
        transfers.map(|transfer| transfer.in_flight()).sum()
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
