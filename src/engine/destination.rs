//! The destinations of a load: host memory, and GPUs.

use crate::device::DeviceTransfer;
use crate::ring::Ring;
use std::sync::Arc;

/// Where the slots of an extent come from, and where full ones go.
pub(crate) struct Destination {
    pub ring: Arc<Ring>,
    /// `None` for the host, where the slot is the tensors' storage.
    pub transfer: Option<Arc<dyn DeviceTransfer>>,
}
