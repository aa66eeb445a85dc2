//! Staying near the card on machines of several NUMA nodes; see [`numa`](crate::numa).

use super::Loader;
use crate::device::cuda::card_info;
use crate::numa::{Near, allowed_cores, has_several_nodes};
use crate::options::Device;
use std::sync::Arc;

impl Loader {
    /// What a load to `devices` stays near to. Only where this may matter is the driver asked where
    /// the cards are, which waits until it is initialised.
    pub(super) fn near(&self, devices: &[Device]) -> Option<Arc<Near>> {
        let ordinals: Vec<u32> = devices.iter().filter_map(|device| device.ordinal()).collect();
        if ordinals.is_empty() || !has_several_nodes(&self.system_root) {
            return None;
        }
        // A card that is not there is told of when it is used.
        let address = |ordinal: &u32| card_info(*ordinal).ok().map(|card| card.pci_address);
        let addresses: Vec<String> = ordinals.iter().map(address).collect::<Option<_>>()?;
        let near = Near::to(&self.system_root, &addresses, &allowed_cores());
        match &near {
            Some(Near { node, cores }) => {
                tracing::debug!(node, cores = cores.len(), "engines and ring stay near the card");
            }
            None => tracing::debug!(?addresses, "the cards are at no one NUMA node"),
        }
        near.map(Arc::new)
    }
}
