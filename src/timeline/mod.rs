//! The timeline of a load: how its memory was used, and when. See
//! [`Loader::timeline`](crate::Loader::timeline).
//!
//! ```text
//! slot   |--- reading ---|- copying -|          the same memory is used by one slot after another
//! slot   |------ reading ------|--- held ---|
//! engine         |-- wait --|                   nothing in flight, and no slot is free
//! ```
//!
//! All parts of a load share a `Recorder`. Whoever takes a slot gets a `TraceSpan` for it, which
//! travels with the slot, records its stages, and ends the record just before the slot's memory is
//! free for others. That is a few records per slot, and none per read or tensor. Without a timeline
//! there are no spans.
//!
//! Loads of mapped pages and loads by GPUDirect Storage have no slots. There, each extent has a record
//! while it is being read.
//!
//! As metrics do, this module stands below the modules that it records.

mod recorder;
mod types;

pub(crate) use recorder::{Recorder, SlotUse, TraceSpan};
pub use types::{Period, SlotSpan, Stage, Step, Timeline, TraceEvent, Wait};
