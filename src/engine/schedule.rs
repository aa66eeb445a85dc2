//! The work of a load: gives out the reads of the plan's extents as slots become free.
//!
//! Extents get their slots strictly in plan order: the next one waits until it fits, however much
//! smaller the ones behind it are. So a large tensor is never starved, and as the ring holds any
//! one extent, a consumer that drops what it got always gets further. Slots on their way to a gpu
//! come back by themselves.
//!
//! Where an extent's tensors are cast, it gets a second slot with the first. Whoever completes the
//! last read casts from one into the other, which is the tensors' storage then; the first is free
//! again at once.
//!
//! Where the caller may keep what it likes, a ring of the host that is all in its hands is left to it,
//! and the load goes on in a new one. What is given back of the old one is gone with its last tensor.

use super::{Completion, Next, Task, Work};
use crate::cast::Cast;
use crate::device::DeviceTransfer;
use crate::error::Result;
use crate::options::Device;
use crate::plan::{Chunk, Extent, chunk_ends};
use crate::ring::{FullSlot, Ring, Slot, Window};
use crate::source::Source;
use crate::tensor::{LoadedTensors, Offsets, Storage};
use crate::timeline::{Recorder, Stage, Taken};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct LoadWork {
    extents: Arc<[Extent]>,
    sources: Vec<Arc<dyn Source>>,
    places: Vec<Destination>,
    chunk_bytes: u64,
    state: Mutex<State>,
    recorder: Option<Arc<Recorder>>,
}

/// Where the slots of an extent come from, and where they go when they are full.
pub(crate) struct Destination {
    pub ring: Arc<Ring>,
    /// `None` for the host: there the slot is the tensors' storage.
    pub transfer: Option<Arc<dyn DeviceTransfer>>,
}

struct State {
    next_extent: usize,
    /// Reads of the extent that got its slot last.
    tasks: VecDeque<Task>,
    /// Where extents that are being read will be cast to, by their index.
    results: HashMap<usize, Slot>,
    /// In place of the host's ring, which the caller has taken over.
    renewed: Option<Arc<Ring>>,
}

impl LoadWork {
    /// Extents name their source and their place by index. `chunk_bytes` is a multiple of every
    /// source's block.
    pub fn new(
        extents: Arc<[Extent]>,
        sources: Vec<Arc<dyn Source>>,
        places: Vec<Destination>,
        chunk_bytes: u64,
    ) -> Self {
        let state = State {
            next_extent: 0,
            tasks: VecDeque::new(),
            results: HashMap::new(),
            renewed: None,
        };
        let state = Mutex::new(state);
        Self { extents, sources, places, chunk_bytes, state, recorder: None }
    }

    /// The same, with the lives of its slots taken down, if anybody wants to know.
    pub fn recorded(self, recorder: Option<Arc<Recorder>>) -> Self {
        Self { recorder, ..self }
    }

    fn block_bytes(&self, extent: &Extent) -> usize {
        self.sources[extent.shard()].block_bytes()
    }

    /// The reads that fill `slot` for extent `index`.
    fn cut(&self, index: usize, extent: &Extent, slot: Slot) -> VecDeque<Task> {
        let block = self.block_bytes(extent);
        let start = extent.slot_offset_bytes(block);
        let ends = chunk_ends(start, extent.slot_len_bytes(block), self.chunk_bytes);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let wanted = (extent.end_bytes() - start) as usize;
        let windows = slot.into_windows(&ends);
        std::iter::zip(starts.zip(&ends), windows)
            .map(|((from, &to), window)| Task {
                source: extent.shard(),
                chunk: Chunk {
                    offset_bytes: start + from as u64,
                    want_bytes: to.min(wanted) - from,
                },
                window,
                ticket: index,
            })
            .collect()
    }

    /// What follows from the full slot of extent `index`.
    fn place(&self, index: usize, full: FullSlot) -> Option<Completion> {
        let extent = &self.extents[index];
        match &self.places[extent.place()].transfer {
            Some(transfer) => {
                transfer.take(index, full);
                None
            }
            None => {
                let from = extent.slot_offset_bytes(self.block_bytes(extent));
                let (storage, starts) = match (extent.cast(), self.take_result(index)) {
                    (Some(cast), Some(result)) => {
                        let start = (extent.offset_bytes() - from) as usize;
                        let source = full.bytes(start..start + extent.len_bytes() as usize);
                        full.enter(Stage::Casting);
                        let storage = cast_into(result, extent.cast_bytes(), cast, source);
                        (storage, Offsets::Cast(extent.offset_bytes(), cast))
                    }
                    _ => (Some(full), Offsets::Shard(from)),
                };
                storage.iter().for_each(|slot| slot.enter(Stage::Held));
                let storage = storage.map_or(Storage::empty(Device::Host), Storage::from_slot);
                Some(Completion::Tensors(LoadedTensors {
                    positions: extent.positions(),
                    storage,
                    starts,
                }))
            }
        }
    }

    /// The slot, taken for the extent, with a mark where lives are taken down.
    fn marked(&self, slot: Slot, engine: usize, extent: &Extent, stage: Stage) -> Slot {
        let Some(recorder) = &self.recorder else { return slot };
        let mark = recorder.slot(Taken {
            engine,
            shard: extent.shard(),
            offset_bytes: extent.slot_offset_bytes(self.block_bytes(extent)),
            bytes: slot.len() as u64,
            stage,
        });
        slot.marked(mark)
    }

    fn take_result(&self, index: usize) -> Option<Slot> {
        self.lock().results.remove(&index)
    }

    /// The ring that slots of the place of this index come from now.
    fn ring<'a>(&'a self, state: &'a State, place: usize) -> &'a Arc<Ring> {
        let Destination { ring, transfer } = &self.places[place];
        match (&state.renewed, transfer) {
            (Some(renewed), None) => renewed,
            _ => ring,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tensors without bytes are in place as they are.
    fn place_empty(&self, extent: &Extent) -> Completion {
        let transfer = self.places[extent.place()].transfer.as_ref();
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

impl Work for LoadWork {
    fn next(&self, engine: usize) -> Next {
        let mut state = self.lock();
        if let Some(task) = state.tasks.pop_front() {
            return Next::Read(task);
        }
        let index = state.next_extent;
        let Some(extent) = self.extents.get(index) else {
            state.renewed.iter().for_each(|ring| ring.close());
            drop(state);
            self.places.iter().for_each(|place| place.ring.close());
            return Next::Finished;
        };
        if extent.len_bytes() == 0 {
            state.next_extent += 1;
            return Next::Deliver(self.place_empty(extent));
        }
        let ring = Arc::clone(self.ring(&state, extent.place()));
        let len = extent.slot_len_bytes(self.block_bytes(extent)) as usize;
        let result_len = extent.cast_bytes() as usize;
        let slots = match result_len {
            0 => ring.allocate(len).map(|slot| (None, slot)),
            _ => ring.allocate_two([result_len, len]).map(|[result, slot]| (Some(result), slot)),
        };
        let need = result_len + len;
        let Some((result, slot)) = slots else {
            return Next::Wait { ring, need };
        };
        let slot = self.marked(slot, engine, extent, Stage::Reading);
        let result = result.map(|result| self.marked(result, engine, extent, Stage::Casting));
        state.results.extend(result.map(|result| (index, result)));
        state.next_extent += 1;
        state.tasks = self.cut(index, extent, slot);
        match state.tasks.pop_front() {
            Some(task) => Next::Read(task),
            // Not reached: an extent with bytes has at least one read.
            None => Next::Wait { ring, need },
        }
    }

    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Completion>> {
        let Some(full) = window.complete() else {
            return Ok(None);
        };
        self.sources[self.extents[ticket].shard()].check_unchanged()?;
        Ok(self.place(ticket, full))
    }

    fn in_hand(&self) -> usize {
        let transfers = self.places.iter().filter_map(|place| place.transfer.as_ref());
        transfers.map(|transfer| transfer.in_hand()).sum()
    }

    fn renew(&self, ring: &Arc<Ring>) -> Result<bool> {
        let mut state = self.lock();
        let mut of_host = self.places.iter().filter(|place| place.transfer.is_none());
        let Some(host) = of_host.next() else {
            return Ok(false);
        };
        let current = state.renewed.as_ref().unwrap_or(&host.ring);
        if !Arc::ptr_eq(current, ring) {
            // Of a GPU; or another lane was first.
            let is_gpu =
                |place: &Destination| place.transfer.is_some() && Arc::ptr_eq(&place.ring, ring);
            return Ok(!self.places.iter().any(is_gpu));
        }
        let new = Ring::new(ring.capacity(), ring.block_bytes())?;
        ring.close(); // wakes who waits for it
        state.renewed = Some(new);
        Ok(true)
    }
}
