//! The timeline of a load: how its memory was used, and when. See
//! [`Loader::timeline`](crate::Loader::timeline).
//!
//! ```text
//! slot   |--- reading ---|- copying -|          the same memory is used by one slot after another
//! slot   |------ reading ------|--- held ---|
//! engine         |-- wait --|                   nothing in flight, and no slot is free
//! ```
//!
//! All parts of a load share a `Recorder`. Each slot carries a `TraceSpan`, which records the
//! slot's stages and ends its record just before the slot's memory is free for others. So there are
//! a few records per slot, and none per read or tensor. Without a timeline there are no spans.
//!
//! Loads of mapped pages and loads by GPUDirect Storage have no slots. In these loads, each extent
//! has a record while it is being read.
//!
//! Like `metrics`, this module is below the modules whose work it records.

mod recorder;
mod types;

pub(crate) use recorder::{Recorder, SlotUse, TraceSpan};
pub use types::{Period, SlotSpan, Stage, Step, Timeline, TraceEvent, Wait};
