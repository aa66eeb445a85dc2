//! The work of a load: gives out the reads of the plan's extents as slots become free.
//!
//! Extents get their slots strictly in plan order: the next one waits until it fits, however much
//! smaller the ones behind it are. So a large tensor is never starved, and as the ring holds any
//! one extent, a consumer that drops what it got always gets further.

use super::{Done, Next, Task, Work};
use crate::device::Device;
use crate::error::Result;
use crate::plan::{Chunk, Extent, Plan, chunk_ends};
use crate::ring::{Ring, Slot, Window};
use crate::source::Source;
use crate::tensor::Storage;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct LoadWork {
    plan: Arc<Plan>,
    ring: Arc<Ring>,
    device: Arc<dyn Device>,
    chunk_bytes: u64,
    state: Mutex<State>,
}

struct State {
    next_extent: usize,
    /// Reads of the extent that got its slot last.
    tasks: VecDeque<Task>,
}

impl LoadWork {
    /// `chunk_bytes` is a multiple of every source's block.
    pub fn new(
        plan: Arc<Plan>,
        ring: Arc<Ring>,
        device: Arc<dyn Device>,
        chunk_bytes: u64,
    ) -> Self {
        let state = State { next_extent: 0, tasks: VecDeque::new() };
        Self { plan, ring, device, chunk_bytes, state: Mutex::new(state) }
    }

    fn source(&self, extent: &Extent) -> &Arc<dyn Source> {
        self.plan.checkpoint().shards()[extent.shard()].source()
    }

    /// The reads that fill `slot` for extent `index`.
    fn cut(&self, index: usize, extent: &Extent, slot: Slot) -> VecDeque<Task> {
        let block = self.source(extent).block_bytes();
        let start = extent.slot_offset_bytes(block);
        let ends = chunk_ends(start, extent.slot_len_bytes(block), self.chunk_bytes);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let wanted = (extent.offset_bytes() + extent.len_bytes() - start) as usize;
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
}

impl Work for LoadWork {
    fn next(&self) -> Next {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = state.tasks.pop_front() {
            return Next::Read(task);
        }
        let index = state.next_extent;
        let Some(extent) = self.plan.extents().get(index) else {
            drop(state);
            self.ring.close();
            return Next::Finished;
        };
        if extent.len_bytes() == 0 {
            state.next_extent += 1;
            return Next::Deliver(Done::Extent { index, storage: Storage::empty() });
        }
        let len = extent.slot_len_bytes(self.source(extent).block_bytes()) as usize;
        let Some(slot) = self.ring.allocate(len) else {
            return Next::Wait(len);
        };
        state.next_extent += 1;
        state.tasks = self.cut(index, extent, slot);
        match state.tasks.pop_front() {
            Some(task) => Next::Read(task),
            None => Next::Wait(len), // not reached: an extent with bytes has at least one read
        }
    }

    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Done>> {
        let Some(full) = window.complete() else {
            return Ok(None);
        };
        self.source(&self.plan.extents()[ticket]).check_unchanged()?;
        let storage = self.device.place(full)?;
        Ok(Some(Done::Extent { index: ticket, storage }))
    }
}
