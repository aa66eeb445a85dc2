//! The interface between the engines and a GPU.

use crate::error::Result;
use crate::options::Device;
use crate::ring::FullSlot;
use crate::tensor::LoadedTensors;
use std::time::Instant;

/// Copies full slots to a GPU.
pub(crate) trait DeviceTransfer: Send + Sync {
    /// The GPU.
    fn device(&self) -> Device;

    /// Queues the full slot of extent `index`. Engines call this on their threads; it never waits
    /// for the GPU.
    fn submit(&self, index: usize, full: FullSlot);

    /// The number of submitted slots that have not returned to the ring yet.
    fn in_flight(&self) -> usize;

    /// Declares that no more slots will be submitted.
    fn close(&self);

    /// Copies slots until the transfer is closed and every slot is copied, or until the load is
    /// cancelled. On return no operation of the GPU accesses a slot.
    ///
    /// # Errors
    /// If the GPU fails or has too little memory.
    fn run(&self, sink: &dyn CompletionSink) -> Result<()>;
}

/// Receives the results of a device transfer on behalf of the load.
pub(crate) trait CompletionSink: Sync {
    /// Delivers tensors whose bytes are all on the GPU.
    fn deliver(&self, ready: LoadedTensors);

    /// Records a fallback from one path to a slower one, for the summary.
    fn downgrade(&self, from: &'static str, to: &'static str, why: &str);

    /// Records in the timeline, if there is one, a step of the setup that began at `since`.
    fn record_step(&self, step: &'static str, device: Device, since: Instant);

    /// Adds `bytes` to the bytes whose checksum on the GPU matched the one of host memory.
    fn add_verified(&self, bytes: u64);

    /// Whether the load was cancelled.
    fn is_cancelled(&self) -> bool;
}
