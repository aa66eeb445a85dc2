//! Staying near the GPU on machines of several NUMA nodes; see [`numa`](crate::numa).

use super::Loader;
use crate::device::cuda::gpu_info;
use crate::numa::{NumaAffinity, allowed_cores, has_several_nodes};
use crate::options::Device;
use std::sync::Arc;

impl Loader {
    /// What a load to `devices` stays near to. Only where this may matter is the driver asked where
    /// the GPUs are, which waits until it is initialised.
    pub(super) fn near(&self, devices: &[Device]) -> Option<Arc<NumaAffinity>> {
        let ordinals: Vec<u32> = devices.iter().filter_map(|device| device.ordinal()).collect();
        if ordinals.is_empty() || !has_several_nodes(&self.system_root) {
            return None;
        }
        // A GPU that is not there is told of when it is used.
        let address = |ordinal: &u32| gpu_info(*ordinal).ok().map(|gpu| gpu.pci_address);
        let addresses: Vec<String> = ordinals.iter().map(address).collect::<Option<_>>()?;
        let near = NumaAffinity::of_gpus(&self.system_root, &addresses, &allowed_cores());
        match &near {
            Some(NumaAffinity { node, cores }) => {
                tracing::debug!(node, cores = cores.len(), "engines and ring stay near the GPU");
            }
            None => tracing::debug!(?addresses, "the GPUs are at no one NUMA node"),
        }
        near.map(Arc::new)
    }
}
