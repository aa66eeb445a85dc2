//! A slot that a GPU reads from: it goes back to the ring when the GPU is done with it, and not
//! before, whatever happens meanwhile.

use super::context::{Context, Entered, log};
use super::sheet::PooledSheet;
use super::stream::{Event, Stream};
use crate::error::Result;
use crate::ring::FullSlot;
use crate::timeline::Stage;
use std::sync::Arc;

/// A full slot, and what else of the host's the GPU needs for it, whose work is queued in a stream
/// or about to be.
///
/// Dropping it waits for the stream: on the way of an error or a panic, too, nothing is given back
/// that the GPU may still read or write.
pub(super) struct Landing {
    context: Arc<Context>,
    stream: Arc<Stream>,
    state: State,
    /// From here on after everything above was seen to.
    slot: Option<FullSlot>,
    sheet: Option<PooledSheet>,
}

enum State {
    /// Work may be in the stream, with no mark behind it.
    Queueing,
    /// All work is before this mark.
    Marked(Event),
    /// The GPU has done it.
    Done,
}

impl Landing {
    /// For work with `slot` that will be queued in `stream`.
    pub fn new(context: &Arc<Context>, stream: &Arc<Stream>, slot: FullSlot) -> Self {
        Self {
            context: Arc::clone(context),
            stream: Arc::clone(stream),
            state: State::Queueing,
            slot: Some(slot),
            sheet: None,
        }
    }

    /// The slot's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], |slot| slot.bytes(0..slot.len()))
    }

    /// A further landing of the same slot.
    pub fn another(&self) -> Self {
        Self {
            context: Arc::clone(&self.context),
            stream: Arc::clone(&self.stream),
            state: State::Queueing,
            slot: self.slot.clone(),
            sheet: None,
        }
    }

    /// Keeps `sheet` with the slot.
    pub fn keep(&mut self, sheet: PooledSheet) -> &mut PooledSheet {
        self.sheet.insert(sheet)
    }

    /// The sheet that is kept.
    pub fn sheet(&mut self) -> Option<&mut PooledSheet> {
        self.sheet.as_mut()
    }

    /// Says that all work is queued.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn mark(&mut self, entered: &Entered<'_>) -> Result<()> {
        self.state = State::Marked(Event::record(entered, &self.stream)?);
        if cfg!(ringload_canary = "early_slot") {
            self.slot = None; // planted: what the tests on the stand-in have to find
        }
        Ok(())
    }

    /// Says that the GPU is done with the slot; where others hold it, that is what it is used for.
    pub fn leave(&self) {
        if let Some(slot) = self.slot.as_ref().filter(|slot| slot.is_shared()) {
            slot.enter(Stage::Held);
        }
    }

    /// Waits until the GPU has done the work. The slot is free when this is dropped.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn wait(&mut self, entered: &Entered<'_>) -> Result<()> {
        if let State::Marked(event) = &self.state {
            event.wait(entered)?;
            self.state = State::Done;
        }
        Ok(())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !matches!(self.state, State::Done) {
            // A GPU that fails even here does not read any more: its context is lost.
            log(self.context.enter().and_then(|entered| self.stream.wait(&entered)));
        }
    }
}
