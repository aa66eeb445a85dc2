//! Where tensors end up.
//!
//! An engine hands every full slot to the load's [`Device`], which answers with the [`Storage`]
//! that the extent's tensors are views of. The host keeps the slot itself: the bytes are already
//! in place. A card copies them and returns the slot to the ring when the copy is done.

mod host;

pub use host::Host;

use crate::error::Result;
use crate::ring::FullSlot;
use crate::tensor::Storage;

/// Where tensors end up: host memory, or a card's.
pub trait Device: Send + Sync {
    /// Its name as users write it, e.g. `cpu`.
    fn label(&self) -> &str;

    /// Takes a full slot and gives the storage that its tensors are views of, with byte 0 of the
    /// storage being byte 0 of the slot. Called on an engine's thread: it must not block.
    ///
    /// # Errors
    /// When the device fails; the load then ends with that error.
    fn place(&self, full: FullSlot) -> Result<Storage>;
}
