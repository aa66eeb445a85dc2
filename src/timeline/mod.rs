//! What the memory of a load did, and when: for [`Loader::timeline`](crate::Loader::timeline).
//!
//! ```text
//! slot   |--- reading ---|- copying -|          one life after the other in the same memory
//! slot   |------ reading ------|--- held ---|
//! engine         |-- wait --|                   nothing in flight, and no slot is free
//! ```
//!
//! A `Recorder` is shared by all that a load consists of. Whoever takes a slot gets a `TraceSpan` for it,
//! which travels with the slot, is told of each stage, and closes the slot's life just before its
//! memory is free for others. That is a few records a slot, and none a read or a tensor; a load that
//! is not recorded has no marks.
//!
//! A load by way of mapped pages and one by GPUDirect Storage have no slots: there, what is read at a
//! time (an extent) takes the place of one, while it is being read.
//!
//! Like metrics, this stands below everything else, and knows nothing of it.

mod recorder;

pub(crate) use recorder::{Recorder, Taken, TraceSpan};

use crate::options::Device;
use std::time::Duration;

/// What the memory of a load did, and when. All times are since the load began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeline {
    /// The slots, in the order in which they were taken.
    pub slots: Vec<SlotSpan>,
    /// When an engine had nothing to do but to wait for a free slot; those of one engine do not
    /// overlap.
    pub waits: Vec<Wait>,
    /// What else took time.
    pub steps: Vec<Step>,
    /// What happened at a moment.
    pub moments: Vec<TraceEvent>,
    /// When this was told. What was still going on, such as tensors that are held, ends here.
    pub end: Duration,
}

/// From one moment to another, since the load began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it began.
    pub start: Duration,
    /// When it ended; not before its start.
    pub end: Duration,
}

/// The life of one slot, from being taken from the ring to being given back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotSpan {
    /// Which engine took it.
    pub engine: usize,
    /// What it is filled from, as an index of [`Checkpoint::shards`](crate::Checkpoint::shards).
    pub shard: usize,
    /// Where in the shard its first byte stands.
    pub offset_bytes: u64,
    /// Its length.
    pub bytes: u64,
    /// How its bytes came, each way once, in the words of
    /// [`Summary::read_bytes`](crate::Summary::read_bytes); and `cache` where any came out of the
    /// local file cache.
    pub ways: Vec<&'static str>,
    /// Its stages, each following upon the one before without a gap.
    pub stages: Vec<(Stage, Period)>,
}

/// What a slot is used for at a time, in the order of its life. Each load has some of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Until its last byte has come.
    Reading,
    /// Its tensors are cast into another slot; or it is that other slot, and waits for them.
    Casting,
    /// It is summed up, for what a GPU sums up to be compared with.
    Checking,
    /// It waits for a GPU, and is copied there.
    Copying,
    /// Tensors are views of it; or it is being written to the local file cache.
    Held,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 5] =
        [Self::Reading, Self::Casting, Self::Checking, Self::Copying, Self::Held];

    /// Its name, in lower case.
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
    /// Which engine.
    pub engine: usize,
    /// When.
    pub period: Period,
}

/// Something besides the slots that took time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// `open` (headers read and the load planned), `fault in` (the ring's memory, before it is
    /// registered), `context` (a GPU's was made), `pin` (the ring was registered with CUDA).
    pub what: &'static str,
    /// Of which GPU, if of one.
    pub device: Option<Device>,
    /// When.
    pub period: Period,
}

/// Something that happened at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// `first tensor` and `last tensor` (handed out), `downgrade` (a step down a ladder), `retry`
    /// (something was asked for again; the first ten thousand times).
    pub what: &'static str,
    /// The reason; empty where there is nothing to say.
    pub why: String,
    /// When.
    pub at: Duration,
}
