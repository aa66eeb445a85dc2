//! Host memory: the slot is the tensors' storage, no byte is copied.

use super::Device;
use crate::error::Result;
use crate::ring::FullSlot;
use crate::tensor::Storage;

/// The host's own memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

impl Device for Host {
    fn label(&self) -> &str {
        "cpu"
    }

    fn place(&self, full: FullSlot) -> Result<Storage> {
        Ok(Storage::from_slot(full))
    }
}
