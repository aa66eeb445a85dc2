//! Devices with memory of their own: full slots are carried there and come back to the ring.
//!
//! For the host there is nothing to do: the bytes are already in place. A card has a `Carrier`,
//! which takes full slots from the engines and works on threads of its own, so that no engine ever
//! waits for the card. What it brings into place it hands to its `Outlet`.

pub(crate) mod cuda;

pub use cuda::{CardInfo, cards};

use crate::error::Result;
use crate::options::Device;
use crate::ring::FullSlot;
use crate::tensor::Ready;
use std::time::Instant;

/// Brings full slots to a card.
pub(crate) trait Carrier: Send + Sync {
    /// The card.
    fn device(&self) -> Device;

    /// Takes the full slot of extent `index`. Called on an engine's thread: it never waits for the
    /// card.
    fn take(&self, index: usize, full: FullSlot);

    /// How many slots were taken and have not come back yet.
    fn in_hand(&self) -> usize;

    /// Says that no more slots come.
    fn close(&self);

    /// Works until it is closed and everything is in place, or until the load is stopped; then no
    /// operation of the card is left that touches a slot.
    ///
    /// # Errors
    /// When the card fails or has too little memory.
    fn run(&self, outlet: &dyn Outlet) -> Result<()>;
}

/// Where a carrier's results go: to the load.
pub(crate) trait Outlet: Sync {
    /// Hands out tensors that are in place.
    fn deliver(&self, ready: Ready);

    /// Records a step down, for the summary.
    fn downgrade(&self, from: &'static str, to: &'static str, why: &str);

    /// Notes what a step took that began at `since`, if anybody wants to know.
    fn took(&self, step: &'static str, device: Device, since: Instant);

    /// Counts bytes that a card has summed up and that are what host memory held.
    fn verified(&self, bytes: u64);

    /// Whether the load was stopped.
    fn is_stopped(&self) -> bool;
}
