//! The interface between engines and the work that they do.

use super::queue::Completion;
use crate::error::Result;
use crate::plan::Chunk;
use crate::ring::{Ring, Window};
use std::sync::Arc;

/// Hands reads to the engines of a load and takes the filled windows back. Shared by all engines.
pub(crate) trait Work: Send + Sync {
    /// The next step of the engine with number `engine`.
    fn next(&self, engine: usize) -> NextStep;

    /// Binds memory to a range that [`next`](Self::next) told to request, now that its first bytes are
    /// there. Returns the read, or what to wait for.
    fn bind(&self, engine: usize, request: ChunkRequest) -> NextStep;

    /// Takes back the filled window of the read with this ticket. Returns what it completed, if
    /// anything.
    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Completion>>;

    /// How many windows are bound and not yet read, and how many full slots the device transfers hold.
    /// The transfers return them when their copies complete.
    fn in_transfer(&self) -> usize {
        0
    }

    /// Replaces `ring`, all of which the caller holds, with a new ring. Returns false where the ring
    /// cannot be replaced.
    ///
    /// # Errors
    /// When the address space is too small for another ring.
    fn replace_ring(&self, _ring: &Arc<Ring>) -> Result<bool> {
        Ok(false)
    }
}

/// The next step of a read task.
pub(crate) enum NextStep {
    /// Perform this read.
    Read(ChunkRead),
    /// Request this range, and bind memory to it when it is answered.
    Request(ChunkRequest),
    /// Deliver this to the caller; it needs no read.
    Deliver(Completion),
    /// Wait until a slot of this ring is freed: `need` bytes are needed.
    Wait { ring: Arc<Ring>, need: usize },
    /// No read is left to begin.
    Finished,
}

/// A range to request from a server, which has no memory yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRequest {
    /// As in [`ChunkRead`].
    pub source: usize,
    pub chunk: Chunk,
    /// The index of the range's extent.
    pub extent: usize,
    /// The number of the range in its extent.
    pub number: usize,
}

/// One read and the memory it fills.
pub(crate) struct ChunkRead {
    /// An index into [`Job::sources`](super::Job::sources).
    pub source: usize,
    pub chunk: Chunk,
    pub window: Window,
    /// How many bytes at the beginning are read for alignment alone: they belong to another read.
    pub lead_bytes: usize,
    /// The list of the [`PartChecks`](crate::checks::PartChecks) that the bytes belong to.
    pub part_list: usize,
    /// Identifies the read for [`Work::complete`].
    pub ticket: usize,
}
