//! Selects the tensors that stay in memory until the load ends.

use ringload::Tensor;

/// Whether tensors stay in memory until the end, by the kind of their device.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub host: bool,
    pub gpus: bool,
}

impl Retention {
    pub fn keeps(self, tensor: &Tensor) -> bool {
        if tensor.device().is_host() { self.host } else { self.gpus }
    }
}
