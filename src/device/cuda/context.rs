//! A GPU's primary context: made once a process, shared with whatever else uses the GPU there.
//!
//! CUDA's calls act on the context that is current on their thread. [`Context::enter`] makes it so
//! and gives the proof, [`Entered`], which every call that needs it takes; it cannot leave its thread.

use super::driver;
use super::failure::check;
use crate::error::Result;
use crate::options::Device;
use cudarc::driver::sys;
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// One reference to a GPU's primary context; given back on drop.
pub(super) struct Context {
    ordinal: u32,
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

// SAFETY: a context is a handle that any thread may make current (CUDA driver API, "Context
// Management"); the driver locks what it needs to.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// The primary context of GPU `ordinal`, made if it is not there: 0.1 to 0.5 s.
    ///
    /// # Errors
    /// Where there is no driver or no such GPU, or the driver fails.
    pub fn retain(ordinal: u32) -> Result<Arc<Self>> {
        driver::initialise(ordinal)?;
        let device = get(ordinal)?;
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the answer, and the device was given by the driver.
        let answer = unsafe { sys::cuDevicePrimaryCtxRetain(raw.as_mut_ptr(), device) };
        check(answer, ordinal, "create a context")?;
        // SAFETY: written by the successful call.
        let raw = unsafe { raw.assume_init() };
        Ok(Arc::new(Self { ordinal, device, raw }))
    }

    /// The GPU.
    pub fn device(&self) -> Device {
        Device::cuda(self.ordinal)
    }

    /// How many multiprocessors the GPU has.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn multiprocessors(&self) -> Result<u32> {
        let mut count = 0;
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        // SAFETY: the pointer is valid for the answer, and the device was given by the driver.
        let answer = unsafe { sys::cuDeviceGetAttribute(&raw mut count, attribute, self.device) };
        check(answer, self.ordinal, "count its multiprocessors")?;
        Ok(count.unsigned_abs().max(1))
    }

    /// Makes the context current on this thread until the proof is dropped.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn enter(self: &Arc<Self>) -> Result<Entered<'_>> {
        // SAFETY: the context is retained as long as `self` lives.
        let answer = unsafe { sys::cuCtxPushCurrent_v2(self.raw) };
        check(answer, self.ordinal, "use its context")?;
        Ok(Entered { context: self, _thread: PhantomData })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: this reference was retained once and is released once; everything made in the
        // context holds a reference of its own.
        let answer = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
        log(check(answer, self.ordinal, "release its context"));
    }
}

/// The proof that a context is current on this thread.
pub(super) struct Entered<'a> {
    context: &'a Arc<Context>,
    /// What is current is a matter of the thread.
    _thread: PhantomData<*const ()>,
}

impl Entered<'_> {
    /// The context that is current.
    pub fn context(&self) -> &Arc<Context> {
        self.context
    }

    /// What `answer` means, met while `doing` something.
    ///
    /// # Errors
    /// For every answer but success.
    pub fn check(&self, answer: sys::CUresult, doing: impl std::fmt::Display) -> Result<()> {
        check(answer, self.context.ordinal, doing)
    }

    /// Free and all memory of the GPU, in bytes.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn memory_bytes(&self) -> Result<(u64, u64)> {
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: both pointers are valid for the answer; a context is current.
        let answer = unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) };
        self.check(answer, "ask for its free memory")?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut popped = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the answer; what is popped is what `enter` pushed, as
        // proofs of one thread are dropped in reverse order of their making.
        let answer = unsafe { sys::cuCtxPopCurrent_v2(popped.as_mut_ptr()) };
        log(self.check(answer, "leave its context"));
    }
}

/// For drops, which cannot fail: says what went wrong.
pub(super) fn log(outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "while letting go of a GPU");
    }
}

/// What a GPU is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its number.
    pub device: Device,
    /// Its name, e.g. `NVIDIA H200`.
    pub name: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Where it sits, as in /sys/bus/pci/devices.
    pub pci_address: String,
}

/// The GPUs that this process sees, and the driver's CUDA version as (major, minor).
///
/// # Errors
/// Where there is no driver, or it fails.
pub fn gpus() -> Result<(Vec<GpuInfo>, (u32, u32))> {
    driver::initialise(0)?;
    let (mut count, mut version) = (0, 0);
    // SAFETY: the pointer is valid for the answer.
    check(unsafe { sys::cuDeviceGetCount(&raw mut count) }, 0, "count GPUs")?;
    // SAFETY: the pointer is valid for the answer.
    check(unsafe { sys::cuDriverGetVersion(&raw mut version) }, 0, "ask for its version")?;
    let gpus = (0..count.unsigned_abs()).map(gpu_info).collect::<Result<_>>()?;
    let version = version.unsigned_abs();
    Ok((gpus, (version / 1000, version % 1000 / 10)))
}

/// What GPU `ordinal` is; the driver is initialised if need be.
///
/// # Errors
/// Where there is no such GPU, or the driver fails.
pub(crate) fn gpu_info(ordinal: u32) -> Result<GpuInfo> {
    driver::initialise(ordinal)?;
    let device = get(ordinal)?;
    let mut memory_bytes = 0_usize;
    // SAFETY: the pointer is valid for the answer, and the device was given by the driver.
    let answer = unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory_bytes, device) };
    check(answer, ordinal, "ask for its memory")?;
    let name = text(|buffer, len| {
        // SAFETY: the buffer holds `len` bytes.
        check(unsafe { sys::cuDeviceGetName(buffer, len, device) }, ordinal, "ask for its name")
    })?;
    let pci_address = text(|buffer, len| {
        // SAFETY: the buffer holds `len` bytes.
        let answer = unsafe { sys::cuDeviceGetPCIBusId(buffer, len, device) };
        check(answer, ordinal, "ask where it is")
    })?;
    let device = Device::cuda(ordinal);
    let pci_address = pci_address.to_ascii_lowercase();
    Ok(GpuInfo { device, name, memory_bytes: memory_bytes as u64, pci_address })
}

fn get(ordinal: u32) -> Result<sys::CUdevice> {
    let mut device = 0;
    let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
    // SAFETY: the pointer is valid for the answer; the driver is initialised by the callers.
    check(unsafe { sys::cuDeviceGet(&raw mut device, number) }, ordinal, "use it")?;
    Ok(device)
}

/// A short text that the driver writes into a buffer, with a zero at its end.
fn text(write: impl FnOnce(*mut c_char, i32) -> Result<()>) -> Result<String> {
    let mut buffer = [0_u8; 256];
    write(buffer.as_mut_ptr().cast(), 255)?;
    let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    Ok(text.to_string_lossy().into_owned())
}
