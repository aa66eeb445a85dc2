//! The GPU memory that a load allocates for its tensors, each part when its first bytes arrive.
//!
//! An allocation is dropped here once its last tensor is handed out. From then on only the tensors
//! keep it alive.

use super::context::Entered;
use super::layout::{Addresses, Layout, LayoutItem};
use super::memory::{DeviceMemory, check_is_of_gpu};
use crate::error::{Error, ErrorKind, Result, Size};
use crate::options::Device;
use crate::plan::Extent;
use crate::sync::Mutex;
use crate::sys::system_memory;
use crate::tensor::{GpuMemory, LoadedTensors, Offsets, Storage};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The allocations of a load on one GPU.
#[derive(Default)]
pub(super) struct Allocations {
    /// By source, or by position if each tensor has its own allocation.
    by_key: Mutex<HashMap<usize, Allocation>>,
}

struct Allocation {
    memory: Arc<DeviceMemory>,
    /// The bytes of the tensors that were not handed out yet.
    pending_bytes: u64,
}

/// Fails unless the GPU has enough free memory for the tensors of `layout` and `staging_bytes`, and
/// the caller's memory is on this GPU. Called before anything is copied.
///
/// The driver counts the page cache as used. For a GPU with its own memory that is right. An integrated
/// GPU gets memory that the page cache gives back, so there the system is asked; its /proc and /sys are
/// read below `system_root`.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`], naming the required and the free bytes; [`ErrorKind::InvalidInput`]
/// for memory that is not on this GPU.
pub(super) fn check_memory(
    entered: &Entered<'_>,
    layout: &Layout,
    staging_bytes: u64,
    system_root: &Path,
) -> Result<()> {
    for &(address, len_bytes) in &layout.caller_memory {
        check_is_of_gpu(entered, address, len_bytes)?;
    }
    let tensors = layout.needed_bytes();
    let (mut free, mut total) = entered.memory_bytes()?;
    let mut is_shared = false;
    if entered.context().is_integrated()?
        && let Some(memory) = system_memory(system_root)
    {
        (free, total) = (memory.available_bytes, memory.total_bytes);
        is_shared = true;
    }
    if tensors + staging_bytes <= free {
        return Ok(());
    }
    let staging = match staging_bytes {
        0 => String::new(),
        bytes => format!(" (and {} for staging)", Size(bytes)),
    };
    let total = match is_shared {
        true => format!("the {} that it shares with the system", Size(total)),
        false => format!("the GPU's {}", Size(total)),
    };
    let gpu = entered.context().device();
    let sentence = format!(
        "{gpu}: the tensors need {}{staging} and {} of {total} are free; free memory on it, or load \
         fewer tensors to it (a device map spreads them over several GPUs)",
        Size(tensors),
        Size(free),
    );
    Err(Error::new(ErrorKind::OutOfMemory, sentence))
}

impl Allocations {
    /// Returns the address of the item at each position of `extent`; allocates missing memory.
    ///
    /// # Errors
    /// If the GPU is out of memory.
    pub fn addresses(
        &self,
        entered: &Entered<'_>,
        layout: &Layout,
        extent: &Extent,
    ) -> Result<Vec<u64>> {
        let positions = extent.positions();
        match &layout.addresses {
            Addresses::Given(addresses) => Ok(addresses[positions].to_vec()),
            Addresses::PerShard => {
                // The items of an extent are of one source.
                let Some(first) = layout.items[positions.clone()].first() else {
                    return Ok(Vec::new());
                };
                let source = first.source as usize;
                let lens = (layout.lens_bytes[source], layout.tensor_bytes[source]);
                let base = self.allocate(entered, source, lens)?;
                Ok(layout.starts[positions].iter().map(|start| base + start).collect())
            }
            Addresses::PerTensor => {
                let address = |position: usize| match layout.items[position] {
                    // An empty tensor needs no memory.
                    LayoutItem { len_bytes: 0, .. } => Ok(0),
                    item => self.allocate(entered, position, (item.target_bytes(), item.len_bytes)),
                };
                positions.map(address).collect()
            }
        }
    }

    /// Returns the tensors at `positions` with their storage. They are of one source; if each tensor
    /// has its own allocation, there is one position.
    pub fn hand_out(
        &self,
        layout: &Layout,
        positions: Range<usize>,
        device: Device,
    ) -> LoadedTensors {
        let items = &layout.items[positions.clone()];
        let (key, starts) = match layout.addresses {
            Addresses::PerShard => {
                (items[0].source as usize, Offsets::Listed(Arc::clone(&layout.starts)))
            }
            Addresses::PerTensor | Addresses::Given(_) => (positions.start, Offsets::Zero),
        };
        let mut allocations = self.by_key.lock();
        let Some(allocation) = allocations.get_mut(&key) else {
            // Empty tensors have no allocation, and neither has the caller's own memory.
            return LoadedTensors { positions, storage: Storage::empty(device), starts };
        };
        allocation.pending_bytes -= items.iter().map(|item| item.len_bytes).sum::<u64>();
        let storage = Storage::gpu(Arc::clone(&allocation.memory) as Arc<dyn GpuMemory>);
        if allocation.pending_bytes == 0 {
            allocations.remove(&key);
        }
        LoadedTensors { positions, storage, starts }
    }

    /// Returns the address of allocation `key`, which is created if it does not exist.
    fn allocate(
        &self,
        entered: &Entered<'_>,
        key: usize,
        (len_bytes, pending_bytes): (u64, u64),
    ) -> Result<u64> {
        let mut allocations = self.by_key.lock();
        if let Some(allocation) = allocations.get(&key) {
            return Ok(allocation.memory.address());
        }
        let memory = DeviceMemory::new(entered, len_bytes as usize)?;
        let address = memory.address();
        allocations.insert(key, Allocation { memory, pending_bytes });
        Ok(address)
    }
}
