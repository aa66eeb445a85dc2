//! The allocations of a load on one GPU, made when their first bytes come.
//!
//! They are let go when their last tensor was handed out: from then on the tensors alone keep them.

use super::context::Entered;
use super::layout::{Addresses, Layout};
use super::memory::DeviceMemory;
use crate::error::Result;
use crate::options::Device;
use crate::plan::Extent;
use crate::tensor::{GpuMemory, Offsets, Storage};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What tensors are put into.
pub(super) struct Holding {
    /// By source, or by position where each tensor has its own.
    allocations: Mutex<HashMap<usize, Allocation>>,
}

struct Allocation {
    memory: Arc<DeviceMemory>,
    /// Bytes of tensors that are not handed out yet.
    left_bytes: u64,
}

impl Holding {
    pub fn new() -> Self {
        Self { allocations: Mutex::default() }
    }

    /// The address of the item at each of the positions of `extent`; allocates what is missing.
    ///
    /// # Errors
    /// When the GPU has no room.
    pub fn addresses(
        &self,
        entered: &Entered<'_>,
        layout: &Layout,
        extent: &Extent,
    ) -> Result<Vec<u64>> {
        let address = |position: usize| match layout.destination() {
            Addresses::Given(addresses) => Ok(addresses[position]),
            Addresses::PerShard => {
                let source = layout.item(position).source as usize;
                let lens = (layout.len_bytes(source), layout.tensor_bytes(source));
                let memory = self.allocate(entered, source, lens)?;
                Ok(memory.address() + layout.starts()[position])
            }
            // What has no bytes needs no place.
            Addresses::PerTensor if layout.item(position).len_bytes == 0 => Ok(0),
            Addresses::PerTensor => {
                let item = layout.item(position);
                let lens = (item.target_bytes(), item.len_bytes);
                let memory = self.allocate(entered, position, lens)?;
                Ok(memory.address())
            }
        };
        extent.positions().map(address).collect()
    }

    /// The storage of tensors at `positions`, which are handed out now. They are of one source, and
    /// where each has its own allocation, one tensor.
    pub fn hand_out(
        &self,
        layout: &Layout,
        positions: &Range<usize>,
        device: Device,
    ) -> (Storage, Offsets) {
        let first = layout.item(positions.start);
        let (key, starts) = match layout.destination() {
            Addresses::PerShard => {
                (first.source as usize, Offsets::Listed(Arc::clone(layout.starts())))
            }
            Addresses::PerTensor | Addresses::Given(_) => (positions.start, Offsets::Zero),
        };
        let handed_bytes: u64 =
            positions.clone().map(|position| layout.item(position).len_bytes).sum();
        let mut allocations = self.lock();
        let Some(allocation) = allocations.get_mut(&key) else {
            // Tensors without bytes need none, and lent memory is the caller's own.
            return (Storage::empty(device), starts);
        };
        allocation.left_bytes -= handed_bytes;
        let storage = Storage::gpu(Arc::clone(&allocation.memory) as Arc<dyn GpuMemory>);
        if allocation.left_bytes == 0 {
            allocations.remove(&key);
        }
        (storage, starts)
    }

    /// The allocation called `key`, made if it is not there.
    fn allocate(
        &self,
        entered: &Entered<'_>,
        key: usize,
        (len_bytes, tensor_bytes): (u64, u64),
    ) -> Result<Arc<DeviceMemory>> {
        let mut allocations = self.lock();
        if let Some(allocation) = allocations.get(&key) {
            return Ok(Arc::clone(&allocation.memory));
        }
        let memory = DeviceMemory::new(entered, len_bytes as usize)?;
        let allocation = Allocation { memory: Arc::clone(&memory), left_bytes: tensor_bytes };
        allocations.insert(key, allocation);
        Ok(memory)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Allocation>> {
        self.allocations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
