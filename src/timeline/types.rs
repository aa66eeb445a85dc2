//! The recorded timeline.

use crate::options::Device;
use std::time::Duration;

/// How the memory of a load was used, and when. All times are since the load began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeline {
    /// The slots, in the order in which they were taken.
    pub slots: Vec<SlotSpan>,
    /// When engines had nothing to do but to wait for a free slot. The waits of one engine do not
    /// overlap.
    pub waits: Vec<Wait>,
    /// Other work that took time.
    pub steps: Vec<Step>,
    /// Events without a duration.
    pub events: Vec<TraceEvent>,
    /// When this timeline was read from the load. Whatever had not ended by then, such as tensors
    /// that are held, ends here.
    pub end: Duration,
}

/// A period of time, since the load began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it began.
    pub start: Duration,
    /// When it ended, at or after its start.
    pub end: Duration,
}

/// The use of one slot, from being taken from the ring to being returned to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotSpan {
    /// The number of the engine that took it.
    pub engine: usize,
    /// The shard that it is filled from, as an index of
    /// [`Checkpoint::shards`](crate::Checkpoint::shards).
    pub shard: usize,
    /// The offset of its first byte in the shard.
    pub offset_bytes: u64,
    /// Its length.
    pub bytes: u64,
    /// The paths by which its bytes were read, each once, named as in
    /// [`Summary::read_bytes`](crate::Summary::read_bytes); and `cache` if any were read from the
    /// local file cache.
    pub paths: Vec<&'static str>,
    /// Its stages. Each begins when the one before it ends.
    pub stages: Vec<(Stage, Period)>,
}

/// What a slot is used for at a time. A slot passes through some of these stages, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Its bytes are being read.
    Reading,
    /// Its tensors are cast into another slot, or other tensors are cast into it.
    Casting,
    /// Its checksum is computed, to be compared with the one that a GPU computes.
    Checking,
    /// It waits for a GPU, and is copied there.
    Copying,
    /// Tensors are views of it, or it is being written to the local file cache.
    Held,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 5] =
        [Self::Reading, Self::Casting, Self::Checking, Self::Copying, Self::Held];

    /// The stage's name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Casting => "casting",
            Self::Checking => "checking",
            Self::Copying => "copying",
            Self::Held => "held",
        }
    }
}

/// An engine had no read in flight and waited for a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// The engine's number.
    pub engine: usize,
    /// When it waited.
    pub period: Period,
}

/// Work other than the use of slots that took time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// `open` (reading the headers and planning the load), `fault in` (faulting in the ring's memory
    /// before it is registered), `context` (creating a GPU's context), `pin` (registering the ring
    /// with CUDA).
    pub what: &'static str,
    /// The GPU that the step was for, if any.
    pub device: Option<Device>,
    /// When it was done.
    pub period: Period,
}

/// An event without a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// `first tensor` and `last tensor` (handed to the caller), `downgrade` (to a slower path), `retry`
    /// (of a request or read; at most the first ten thousand are recorded).
    pub what: &'static str,
    /// The reason, or an empty string.
    pub why: String,
    /// When it happened.
    pub at: Duration,
}
