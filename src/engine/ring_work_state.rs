//! Which of a load's extents have slots, which were requested, and which reads were handed out.

use super::work::{ChunkRead, ChunkRequest};
use crate::ring::{Ring, Slot, Window};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The state of a [`RingWork`](super::RingWork), behind its lock.
#[derive(Default)]
pub(super) struct RingWorkState {
    /// The first extent whose reads were not handed out.
    pub next_extent: usize,
    /// The first extent that has no slot; no greater than `next_extent`.
    pub next_bound: usize,
    /// Ranges of the extent before `next_extent` that were not handed out to be requested.
    pub ranges: VecDeque<ChunkRequest>,
    /// The extents that were handed out to be requested and are not bound, or not all of whose windows
    /// are being read.
    pub requested: HashMap<usize, RequestedExtent>,
    /// The bytes of the extents from the next one on.
    pub left_bytes: u64,
    /// Reads of the extent that got its slot last.
    pub reads: VecDeque<ChunkRead>,
    /// The slots that extents which are being read will be packed or cast into, by the extents' indices.
    pub copy_slots: HashMap<usize, Slot>,
    /// Used instead of the host's ring once the caller has retained all of it.
    pub replacement: Option<Arc<Ring>>,
}

/// An extent whose ranges were handed out.
pub(super) struct RequestedExtent {
    /// The ends of the ranges in the slot.
    pub ends: Vec<usize>,
    /// The windows of the ranges, without those that are being read. `None` until the extent is bound.
    pub windows: Option<Vec<Option<Window>>>,
}
