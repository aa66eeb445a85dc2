//! Binds loads to the NUMA node of their GPUs; see [`numa`](crate::numa).

use super::loader::Loader;
use crate::device::cuda::gpu_info;
use crate::numa::{NumaAffinity, allowed_cores, has_several_nodes};
use crate::options::Device;
use std::sync::Arc;

impl Loader {
    /// The NUMA node to which the threads of a load to `devices` are bound. The CUDA driver, which
    /// takes time to initialise, is used only where the machine has several nodes.
    pub(super) fn affinity(&self, devices: &[Device]) -> Option<Arc<NumaAffinity>> {
        let root = &self.options.system_root;
        let ordinals: Vec<u32> = devices.iter().filter_map(|device| device.ordinal()).collect();
        if ordinals.is_empty() || !has_several_nodes(root) {
            return None;
        }
        // A missing GPU is an error later, when the load uses it.
        let address = |ordinal: &u32| gpu_info(*ordinal).ok().map(|gpu| gpu.pci_address);
        let addresses: Vec<String> = ordinals.iter().map(address).collect::<Option<_>>()?;
        let affinity = NumaAffinity::of_gpus(root, &addresses, &allowed_cores());
        match &affinity {
            Some(NumaAffinity { node, cores }) => {
                tracing::debug!(node, cores = cores.len(), "engines and ring use the GPU's node");
            }
            None => tracing::debug!(?addresses, "the GPUs have no common NUMA node"),
        }
        affinity.map(Arc::new)
    }
}
