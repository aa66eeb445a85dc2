//! Tensors that a load by names has read ahead, and that stay in the ring when it is restarted.
//!
//! Tensors that were read together share a slot of the ring, which is free when all of them are gone. So
//! they are given up slot by slot.

use crate::ring::Ring;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// Tensors of loads that have ended.
#[derive(Default)]
pub(super) struct KeptTensors {
    /// By their indices in the checkpoint.
    tensors: HashMap<u32, Tensor>,
    /// The slots by their addresses.
    slots: HashMap<u64, KeptSlot>,
}

struct KeptSlot {
    bytes: usize,
    tensors: Vec<u32>,
}

impl KeptTensors {
    /// Adds tensors, in the order of their slots.
    pub fn add(&mut self, tensors: Vec<Tensor>) {
        for tensor in tensors {
            let (index, storage) = (tensor.index() as u32, tensor.storage());
            let bytes = storage.len_bytes();
            let slot = self.slots.entry(storage.address());
            slot.or_insert(KeptSlot { bytes, tensors: Vec::new() }).tensors.push(index);
            self.tensors.insert(index, tensor);
        }
    }

    /// Takes a tensor.
    pub fn take(&mut self, index: u32) -> Option<Tensor> {
        let tensor = self.tensors.remove(&index)?;
        let address = tensor.storage().address();
        if let Some(slot) = self.slots.get_mut(&address) {
            slot.tensors.retain(|&other| other != index);
            if slot.tensors.is_empty() {
                self.slots.remove(&address);
            }
        }
        Some(tensor)
    }

    pub fn has(&self, index: u32) -> bool {
        self.tensors.contains_key(&index)
    }

    /// The bytes of the ring that the tensors take.
    pub fn bytes(&self) -> u64 {
        self.slots.values().map(|slot| slot.bytes as u64).sum()
    }

    /// Gives tensors up until `ring` has a free range of `free_bytes`: those that come last by `key`.
    pub fn give_up<K: Ord + Copy>(&mut self, ring: &Ring, free_bytes: u64, key: impl Fn(u32) -> K) {
        let mut slots: Vec<_> = (self.slots.iter())
            .map(|(&address, slot)| (slot.tensors.iter().map(|&index| key(index)).min(), address))
            .collect();
        slots.sort_unstable();
        while (ring.longest_free_bytes() as u64) < free_bytes
            && let Some((_, address)) = slots.pop()
        {
            let slot = self.slots.remove(&address);
            slot.into_iter().flat_map(|slot| slot.tensors).for_each(|index| {
                self.tensors.remove(&index);
            });
        }
    }
}
