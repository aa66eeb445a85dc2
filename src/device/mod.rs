//! Devices with memory of their own: full slots are carried there and come back to the ring.
//!
//! For the host there is nothing to do: the bytes are already in place. A GPU has a `DeviceTransfer`,
//! which takes full slots from the engines and works on threads of its own, so that no engine ever
//! waits for the GPU. What it brings into place it hands to its `CompletionSink`.

pub(crate) mod cuda;

pub use cuda::{GpuInfo, gpus};

use crate::error::Result;
use crate::options::Device;
use crate::ring::FullSlot;
use crate::tensor::LoadedTensors;
use std::time::Instant;

/// Brings full slots to a GPU.
pub(crate) trait DeviceTransfer: Send + Sync {
    /// The GPU.
    fn device(&self) -> Device;

    /// Takes the full slot of extent `index`. Called on an engine's thread: it never waits for the
    /// GPU.
    fn take(&self, index: usize, full: FullSlot);

    /// How many slots were taken and have not come back yet.
    fn in_hand(&self) -> usize;

    /// Says that no more slots come.
    fn close(&self);

    /// Works until it is closed and everything is in place, or until the load is stopped; then no
    /// operation of the GPU is left that touches a slot.
    ///
    /// # Errors
    /// When the GPU fails or has too little memory.
    fn run(&self, sink: &dyn CompletionSink) -> Result<()>;
}

/// Where a device transfer's results go: to the load.
pub(crate) trait CompletionSink: Sync {
    /// Hands out tensors that are in place.
    fn deliver(&self, ready: LoadedTensors);

    /// Records a step down, for the summary.
    fn downgrade(&self, from: &'static str, to: &'static str, why: &str);

    /// Notes what a step took that began at `since`, if anybody wants to know.
    fn took(&self, step: &'static str, device: Device, since: Instant);

    /// Counts bytes that a GPU has summed up and that are what host memory held.
    fn verified(&self, bytes: u64);

    /// Whether the load was stopped.
    fn is_stopped(&self) -> bool;
}
