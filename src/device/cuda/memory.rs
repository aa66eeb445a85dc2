//! Memory of a GPU, and host memory that a GPU may read.

use super::answer::Answer;
use super::context::{Context, Entered};
use super::functions::call;
use super::stream::copy_out_now;
use crate::error::{Error, Result, Size};
use crate::options::Device;
use crate::ring::Ring;
use crate::tensor::GpuMemory;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

/// Every context may use the registered memory, not only the one that registered it.
const PORTABLE: u32 = 1;

/// An allocation on a GPU; freed on drop.
pub(super) struct DeviceMemory {
    context: Arc<Context>,
    address: u64,
    len_bytes: usize,
}

impl DeviceMemory {
    /// Allocates `len_bytes` bytes of uninitialised memory, aligned to at least 256 bytes.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory) if the GPU has too little free memory.
    pub fn new(entered: &Entered<'_>, len_bytes: usize) -> Result<Arc<Self>> {
        let mut address = 0;
        // SAFETY: the pointer is valid for the answer; a context is current.
        let answer = unsafe { call!(cuMemAlloc_v2(&raw mut address, len_bytes.max(1))) };
        entered.check(answer, format_args!("allocate {}", Size(len_bytes as u64)))?;
        Ok(Arc::new(Self { context: Arc::clone(entered.context()), address, len_bytes }))
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated once, freed once, in the same context. No copy of this load writes to the
        // memory any more, because copies hold it until they have finished.
        self.context.release("free memory", || unsafe { call!(cuMemFree_v2(self.address)) });
    }
}

impl GpuMemory for DeviceMemory {
    fn device(&self) -> Device {
        self.context.device()
    }

    fn address(&self) -> u64 {
        self.address
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    fn copy_out(&self, start: usize, into: &mut [u8]) -> Result<()> {
        if into.is_empty() {
            return Ok(());
        }
        // SAFETY: the source lies within this allocation, as the caller asserts. Nobody writes to the
        // allocation once tensors are views of it.
        unsafe { copy_out_now(&self.context.enter()?, into, self.address + start as u64) }
    }
}

/// Fails unless the `len_bytes` bytes from `address` begin and end in memory of the current GPU.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the range.
pub(super) fn check_is_of_gpu(entered: &Entered<'_>, address: u64, len_bytes: u64) -> Result<()> {
    let gpu = entered.context().device();
    let ends = [address, address.saturating_add(len_bytes - len_bytes.min(1))];
    if len_bytes == 0 || ends.into_iter().all(|end| ordinal_of(end).map(Device::cuda) == Some(gpu))
    {
        return Ok(());
    }
    Err(Error::invalid_input(format!(
        "{gpu}: {} from address {address:#x} are not memory of this GPU; pass the address that its \
         allocator returned, and the GPU that it is on",
        Size(len_bytes)
    )))
}

/// The GPU that `address` belongs to, if any.
fn ordinal_of(address: u64) -> Option<u32> {
    let mut kind = 0_u32;
    let mut ordinal = 0_i32;
    // SAFETY: each attribute is written to a variable of its documented type; any address may be
    // queried.
    let answers = unsafe {
        [
            call!(cuPointerGetAttribute(
                (&raw mut kind).cast(),
                sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                address,
            )),
            call!(cuPointerGetAttribute(
                (&raw mut ordinal).cast(),
                sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                address,
            )),
        ]
    };
    let known = answers == [Answer::SUCCESS; 2];
    (known && kind == sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32)
        .then(|| ordinal.unsigned_abs())
}

/// A ring whose memory can be pinned, so that GPUs can read it directly.
///
/// The first GPU that is ready pins it for all GPUs. It is unpinned before it is unmapped.
pub(crate) struct PinnedRing {
    /// Declared before the ring, so that it is dropped first. `Err` holds the reason why the ring
    /// cannot be pinned.
    pin: OnceLock<Result<Pin, String>>,
    ring: Arc<Ring>,
}

impl PinnedRing {
    /// Wraps `ring`, which is pinned at the first call of `pin`.
    pub fn new(ring: Arc<Ring>) -> Self {
        Self { pin: OnceLock::new(), ring }
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Pins the ring's memory, unless an earlier call did or failed to.
    ///
    /// # Errors
    /// The reason why the memory cannot be pinned.
    pub(super) fn pin(&self, entered: &Entered<'_>) -> Result<(), &str> {
        let (start, len) = self.ring.region();
        let pin = self.pin.get_or_init(|| Pin::new(entered, start, len).map_err(|e| e.to_string()));
        pin.as_ref().map(|_| ()).map_err(String::as_str)
    }
}

/// Host memory that is registered with CUDA; unregistered on drop.
pub(super) struct Pin {
    context: Arc<Context>,
    start: usize,
}

impl Pin {
    /// Registers `len` bytes of page-aligned host memory from `start`, which faults in all its pages.
    ///
    /// The owner drops the pin before it unmaps the memory. Until then the driver keeps the pages in
    /// place, so forgetting the pin only leaks memory.
    ///
    /// # Errors
    /// If the driver fails; some containers and virtual machines do not permit registration.
    pub fn new(entered: &Entered<'_>, start: usize, len: usize) -> Result<Self> {
        // SAFETY: the range is mapped memory of this process; registration does not change its bytes.
        let answer = unsafe { call!(cuMemHostRegister_v2(start as *mut c_void, len, PORTABLE)) };
        entered.check(answer, format_args!("register {} of host memory", Size(len as u64)))?;
        Ok(Self { context: Arc::clone(entered.context()), start })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // SAFETY: registered once, unregistered once; device transfers end only after their copies.
        self.context.release("unregister host memory", || unsafe {
            call!(cuMemHostUnregister(self.start as *mut c_void))
        });
    }
}
