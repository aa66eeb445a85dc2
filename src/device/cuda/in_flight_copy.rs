//! A slot that a GPU reads from. It returns to the ring only after the GPU has finished with it, even
//! if an error or a panic ends the load.

use super::context::Entered;
use super::launch_arguments::LaunchArguments;
use super::stream::{Event, Stream};
use crate::error::Result;
use crate::ring::FullSlot;
use crate::timeline::Stage;
use std::sync::Arc;

/// A full slot and the launch arguments of its kernels, while their work is queued in a stream.
///
/// Dropping it waits for the stream, so that no memory that the GPU may still access is released.
pub(super) struct InFlightCopy {
    stream: Arc<Stream>,
    state: CopyState,
    // Dropped after the stream was waited for.
    slot: Option<FullSlot>,
    arguments: Option<LaunchArguments>,
}

enum CopyState {
    /// The stream may hold work without an event after it.
    Queueing,
    /// All work precedes this event.
    Queued(Event),
    /// The GPU has finished the work.
    Finished,
}

impl InFlightCopy {
    /// Creates a copy of `slot`, whose work will be queued in `stream`.
    pub fn new(stream: &Arc<Stream>, slot: Option<FullSlot>) -> Self {
        let (stream, state) = (Arc::clone(stream), CopyState::Queueing);
        Self { stream, state, slot, arguments: None }
    }

    /// Creates another copy of the same slot.
    pub fn another(&self) -> Self {
        Self::new(&self.stream, self.slot.clone())
    }

    /// The slot's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], |slot| slot.bytes(0..slot.len()))
    }

    /// Keeps `arguments` until the GPU has finished the work.
    pub fn keep(&mut self, arguments: LaunchArguments) -> &mut LaunchArguments {
        self.arguments.insert(arguments)
    }

    /// The arguments of the queued kernels, if there are any.
    pub fn arguments(&mut self) -> Option<&mut LaunchArguments> {
        self.arguments.as_mut()
    }

    /// Records an event after the queued work. No more work may be queued afterwards.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn finish_queueing(&mut self, entered: &Entered<'_>) -> Result<()> {
        self.state = CopyState::Queued(Event::record(entered, &self.stream)?);
        if cfg!(ringload_canary = "early_slot") {
            self.slot = None; // a planted bug, which the tests on the CUDA stand-in have to find
        }
        Ok(())
    }

    /// Waits until the GPU has finished the work. Dropping the copy then frees the slot.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn wait(&mut self, entered: &Entered<'_>) -> Result<()> {
        if let CopyState::Queued(event) = &self.state {
            event.wait(entered)?;
            self.state = CopyState::Finished;
        }
        Ok(())
    }

    /// If others hold the slot too, records in its timeline that from now on only they do.
    pub fn leave_slot(&self) {
        if let Some(slot) = self.slot.as_ref().filter(|slot| slot.is_shared()) {
            slot.enter(Stage::Held);
        }
    }
}

impl Drop for InFlightCopy {
    fn drop(&mut self) {
        if !matches!(self.state, CopyState::Finished) {
            // If this fails, the context is lost and the GPU does not access memory any more.
            self.stream.drain();
        }
    }
}
