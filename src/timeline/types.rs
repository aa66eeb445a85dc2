//! The recorded timeline.

use crate::options::Device;
use std::time::Duration;

/// How the memory of a load was used, and when. All times are relative to the start of the load.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let mut stream = ringload::Loader::new().timeline(true).stream(&path)?;
/// for tensor in stream.by_ref() {
///     drop(tensor?);
/// }
/// let timeline = stream.timeline().unwrap_or_default();
/// for slot in &timeline.slots {
///     println!("{} bytes by {:?}: {:?}", slot.bytes, slot.paths, slot.stages);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeline {
    /// The slots, in the order in which they were taken.
    pub slots: Vec<SlotSpan>,
    /// The periods in which engines could only wait for a free slot. The waits of one engine do not
    /// overlap.
    pub waits: Vec<Wait>,
    /// Steps of the load that use no slot, such as creating a GPU's context.
    pub steps: Vec<Step>,
    /// Events without a duration.
    pub events: Vec<TraceEvent>,
    /// When this timeline was read from the load. Spans that had not ended by then, such as those
    /// of held tensors, end at this time.
    pub end: Duration,
}

/// A period of time, relative to the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The start of the period.
    pub start: Duration,
    /// The end of the period, at or after its start.
    pub end: Duration,
}

/// The use of one slot, from being taken from the ring to being returned to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotSpan {
    /// The number of the engine that took the slot.
    pub engine: usize,
    /// The shard that the slot is filled from, as an index into
    /// [`Checkpoint::shards`](crate::Checkpoint::shards).
    pub shard: usize,
    /// The offset in the shard of the slot's first byte.
    pub offset_bytes: u64,
    /// The slot's length in bytes.
    pub bytes: u64,
    /// The paths by which the slot's bytes were read, each once, named as in
    /// [`Summary::read_bytes`](crate::Summary::read_bytes); and `cache` if any were read from the
    /// local file cache.
    pub paths: Vec<&'static str>,
    /// The slot's stages. Each begins when the one before it ends.
    pub stages: Vec<(Stage, Period)>,
}

/// A stage of a slot's use. A slot passes through some of these stages, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The slot's bytes are being read.
    Reading,
    /// The slot's tensors are being cast into another slot, or tensors are being cast into this
    /// slot.
    Casting,
    /// The slot's checksum is being computed, to be compared with the checksum that a GPU computes.
    Checking,
    /// The slot waits for a GPU or is being copied to it.
    Copying,
    /// Tensors are views of the slot, or it is being written to the local file cache.
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
    /// The period of the wait.
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
    /// The period of the step.
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
    /// The time of the event.
    pub at: Duration,
}
