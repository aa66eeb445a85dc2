//! A slot that a card reads from: it goes back to the ring when the card is done with it, and not
//! before, whatever happens meanwhile.

use super::context::{Context, Entered, log};
use super::stream::{Event, Stream};
use crate::error::Result;
use crate::ring::FullSlot;
use std::sync::Arc;

/// A full slot whose copies are queued, or about to be, in a stream.
///
/// Dropping it waits for the stream: on the way of an error or a panic, too, no slot is given back
/// that the card may still read.
pub(super) struct Landing {
    context: Arc<Context>,
    stream: Arc<Stream>,
    state: State,
    /// After everything above was seen to.
    slot: Option<FullSlot>,
}

enum State {
    /// Copies may be in the stream, with no mark behind them.
    Queueing,
    /// All copies are before this mark.
    Marked(Event),
    /// The card has done them.
    Done,
}

impl Landing {
    /// For copies of `slot` that will be queued in `stream`.
    pub fn new(context: &Arc<Context>, stream: &Arc<Stream>, slot: FullSlot) -> Self {
        Self {
            context: Arc::clone(context),
            stream: Arc::clone(stream),
            state: State::Queueing,
            slot: Some(slot),
        }
    }

    /// The slot's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], FullSlot::bytes)
    }

    /// The stream for the copies.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Says that all copies are queued.
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

    /// Waits until the card has done the copies, and gives the slot back to the ring.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn wait(mut self, entered: &Entered<'_>) -> Result<()> {
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
            // A card that fails even here does not read any more: its context is lost.
            log(self.context.enter().and_then(|entered| self.stream.wait(&entered)));
        }
    }
}
