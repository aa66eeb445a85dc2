//! Fills the slots of tensors from other slots: parts of tensors are gathered, and tensors are packed or
//! cast.
//!
//! ```text
//! ring of pieces:  | ## .. ## .. |  | ## .. ## .. |      an extent each, read as any other
//!                      \    \           \    \
//! host's ring:     |   ##   ##     |    ##   ##   |      a window for each piece: the part's storage
//! ```
//!
//! A part gets its slot before its first piece does. The slot is split into windows, one for each piece,
//! and whoever completes the read of a piece copies its runs into that window. The last window completes
//! the part. Only engines hold pieces, so a ring with room for one piece always goes on.
//!
//! An extent whose tensors are packed or cast gets two slots of the host's ring, and whoever completes its
//! last read copies from the one to the other.

use super::queue::Completion;
use super::work::NextStep;
use crate::plan::{Extent, Plan, packed_start};
use crate::ring::{FullSlot, Ring, Slot, Window};
use crate::sync::Mutex;
use crate::tensor::{LoadedTensors, Offsets, Storage};
use crate::timeline::Stage;
use std::collections::HashMap;
use std::sync::Arc;

/// The parts of a load that are gathered in host memory.
pub(crate) struct GatherWork {
    plan: Arc<Plan>,
    /// The ring that pieces pass through.
    ring: Arc<Ring>,
    state: Mutex<GatherState>,
}

#[derive(Default)]
struct GatherState {
    /// The position of the part whose slot was allocated last.
    begun: Option<usize>,
    /// The windows that are not filled yet, by the indices of their pieces.
    windows: HashMap<usize, Window>,
}

impl GatherWork {
    /// The parts of `plan`, whose pieces pass through `ring`.
    pub fn new(plan: Arc<Plan>, ring: Arc<Ring>) -> Self {
        Self { plan, ring, state: Mutex::default() }
    }

    /// The ring that pieces pass through.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Allocates `len` bytes for the piece that is extent `index`, and before the first piece of a part
    /// the slot of the part from the `host` ring, whose use `traced` records. Returns what to wait for if
    /// they do not fit.
    pub fn allocate(
        &self,
        index: usize,
        host: &Arc<Ring>,
        len: usize,
        traced: &dyn Fn(Slot) -> Slot,
    ) -> Result<Slot, NextStep> {
        let mut state = self.state.lock();
        let position = self.plan.extents()[index].positions().start;
        if state.begun != Some(position) {
            let pieces = self.pieces(index, position);
            let need = pieces.last().map_or(0, |&(_, end)| end);
            let wait = || NextStep::Wait { ring: Arc::clone(host), need };
            let slot = traced(host.allocate(need).ok_or_else(wait)?);
            let ends: Vec<usize> = pieces.iter().map(|&(_, end)| end).collect();
            let indices = pieces.iter().map(|&(index, _)| index);
            state.windows.extend(indices.zip(slot.into_windows(&ends)));
            state.begun = Some(position);
        }
        let wait = || NextStep::Wait { ring: Arc::clone(&self.ring), need: len };
        self.ring.allocate(len).ok_or_else(wait)
    }

    /// The pieces of the part at `position`, of which extent `first` is the first, and where each ends
    /// in the part's slot.
    fn pieces(&self, first: usize, position: usize) -> Vec<(usize, usize)> {
        let extents = self.plan.extents();
        let is_piece = |index: &usize| {
            extents.get(*index).is_some_and(|extent| extent.positions().start == position)
        };
        let end = |index: usize| match is_piece(&(index + 1)) {
            true => self.start(&extents[index + 1]),
            false => self.target_bytes(position, self.plan.span(position).len_bytes),
        };
        (first..).take_while(is_piece).map(|index| (index, end(index) as usize)).collect()
    }

    /// Where the runs of a piece begin in the slot of its part.
    fn start(&self, piece: &Extent) -> u64 {
        let position = piece.positions().start;
        let part = self.plan.part(position);
        let first = part.and_then(|part| part.within(piece.offset_bytes(), 1).next());
        self.target_bytes(position, first.map_or(0, |range| range.target_bytes))
    }

    /// What `bytes` bytes of the part at `position` become by its cast.
    fn target_bytes(&self, position: usize, bytes: u64) -> u64 {
        self.plan.cast_at(position).map_or(bytes, |cast| cast.target_bytes(bytes))
    }

    /// Copies the runs of extent `index`, whose bytes begin at `start` of the slot `piece`, to the slot
    /// of their part. Returns the part if it is full.
    pub fn take(&self, index: usize, piece: &FullSlot, start: usize) -> Option<Completion> {
        let extent = &self.plan.extents()[index];
        let positions = extent.positions();
        let mut window = self.state.lock().windows.remove(&index)?;
        piece.enter(Stage::Casting);
        let bytes = piece.bytes(start..start + extent.len_bytes() as usize);
        copy_tensor(&self.plan, positions.start, extent, bytes, window.unfilled_mut());
        let full = window.complete()?;
        full.enter(Stage::Held);
        let (storage, starts) = (Storage::from_slot(full), Offsets::Zero);
        Some(Completion::Tensors(LoadedTensors { positions, storage, starts }))
    }
}

/// Packs or casts the tensors of `extent`, whose bytes are `bytes`, into `slot`. Returns where they begin
/// there.
pub(super) fn copy_extent(
    plan: &Plan,
    extent: &Extent,
    bytes: &[u8],
    slot: Slot,
) -> Option<(FullSlot, Offsets)> {
    let mut window = slot.into_windows(&[extent.copied_bytes() as usize]).pop()?;
    let into = window.unfilled_mut();
    if let Some(cast) = extent.cast().filter(|_| !extent.is_packed()) {
        cast.run(bytes, into);
        return Some((window.complete()?, Offsets::Cast(extent.offset_bytes(), cast)));
    }
    let (mut starts, mut end) = (Vec::with_capacity(extent.positions().len()), 0);
    for position in extent.positions() {
        let start = packed_start(end);
        end = start + copy_tensor(plan, position, extent, bytes, &mut into[start as usize..]);
        starts.push(start);
    }
    Some((window.complete()?, Offsets::Packed(extent.positions().start, starts.into())))
}

/// Copies what the `bytes` of `extent` have of the tensor at `position` next to each other to the beginning
/// of `into`, cast if it is cast. Returns how many bytes it has become.
fn copy_tensor(
    plan: &Plan,
    position: usize,
    extent: &Extent,
    bytes: &[u8],
    mut into: &mut [u8],
) -> u64 {
    let cast = plan.cast_at(position);
    let mut copied = 0;
    for range in plan.ranges(position, extent) {
        let from = (range.offset_bytes - extent.offset_bytes()) as usize;
        let run = &bytes[from..from + range.len_bytes as usize];
        let len = cast.map_or(range.len_bytes, |cast| cast.target_bytes(range.len_bytes));
        let (target, rest) = into.split_at_mut(len as usize);
        match cast {
            Some(cast) => cast.run(run, target),
            None => target.copy_from_slice(run),
        }
        (into, copied) = (rest, copied + len);
    }
    copied
}
