//! A GPU's primary context, which a process creates once and shares with every other user of the
//! GPU in that process.
//!
//! CUDA's calls act on the context that is current on their thread. [`Context::enter`] makes the
//! context current and returns an [`Entered`], the proof that the other calls require. The proof
//! cannot leave its thread.

use super::answer::Answer;
use super::driver;
use super::driver_error::check;
use super::functions::call;
use crate::error::Result;
use crate::options::Device;
use cudarc::driver::sys;
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Arc;

/// One reference to a GPU's primary context; released on drop.
pub(super) struct Context {
    ordinal: u32,
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

// SAFETY: a context is a handle that any thread may make current (CUDA driver API, "Context
// Management"); the driver locks its own state.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the primary context of GPU `ordinal`. If it does not exist yet, the driver creates it
    /// in 0.1 to 0.5 s.
    ///
    /// # Errors
    /// If there is no driver or no such GPU, or the driver fails.
    pub fn retain(ordinal: u32) -> Result<Arc<Self>> {
        let device = driver::device(ordinal)?;
        let mut handle = null_mut();
        // SAFETY: the pointer is valid for the answer, and the driver gave the device.
        let answer = unsafe { call!(cuDevicePrimaryCtxRetain(&raw mut handle, device)) };
        check(answer, ordinal, "create a context")?;
        Ok(Arc::new(Self { ordinal, device, handle }))
    }

    /// The GPU.
    pub fn device(&self) -> Device {
        Device::cuda(self.ordinal)
    }

    /// The number of the GPU's multiprocessors.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn multiprocessors(&self) -> Result<u32> {
        let mut count = 0;
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        // SAFETY: the pointer is valid for the answer, and the driver gave the device.
        let answer = unsafe { call!(cuDeviceGetAttribute(&raw mut count, attribute, self.device)) };
        check(answer, self.ordinal, "count its multiprocessors")?;
        Ok(count.unsigned_abs().max(1))
    }

    /// Whether the GPU has no memory of its own and uses that of the host.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn is_integrated(&self) -> Result<bool> {
        driver::is_integrated(self.device, self.ordinal)
    }

    /// Makes the context current on this thread until the proof is dropped.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn enter(self: &Arc<Self>) -> Result<Entered<'_>> {
        // SAFETY: the context is retained as long as `self` lives.
        let answer = unsafe { call!(cuCtxPushCurrent_v2(self.handle)) };
        check(answer, self.ordinal, "enter its context")?;
        Ok(Entered { context: self, _thread: PhantomData })
    }

    /// Calls the driver with this context current, and logs a failure instead of returning it, as
    /// `drop` cannot return errors.
    pub fn release(self: &Arc<Self>, doing: &str, call: impl FnOnce() -> Answer) {
        log(self.enter().and_then(|entered| entered.check(call(), doing)));
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: this reference was retained once and is released once; everything created in the
        // context holds its own reference.
        let answer = unsafe { call!(cuDevicePrimaryCtxRelease_v2(self.device)) };
        log(check(answer, self.ordinal, "release its context"));
    }
}

/// The proof that a context is current on this thread.
pub(super) struct Entered<'a> {
    context: &'a Arc<Context>,
    /// The current context is a property of the thread, so the proof must not leave it.
    _thread: PhantomData<*const ()>,
}

impl Entered<'_> {
    /// The current context.
    pub fn context(&self) -> &Arc<Context> {
        self.context
    }

    /// Converts the driver's `answer` to a call made while `doing` something.
    ///
    /// # Errors
    /// For every answer except success.
    pub fn check(&self, answer: Answer, doing: impl std::fmt::Display) -> Result<()> {
        check(answer, self.context.ordinal, doing)
    }

    /// The free and the total memory of the GPU, in bytes.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn memory_bytes(&self) -> Result<(u64, u64)> {
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: both pointers are valid for the answer; a context is current.
        let answer = unsafe { call!(cuMemGetInfo_v2(&raw mut free, &raw mut total)) };
        self.check(answer, "query its free memory")?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut popped = null_mut();
        // SAFETY: the pointer is valid for the answer. The call pops the context that `enter`
        // pushed, because the proofs of one thread are dropped in reverse order of their creation.
        let answer = unsafe { call!(cuCtxPopCurrent_v2(&raw mut popped)) };
        log(self.check(answer, "leave its context"));
    }
}

fn log(outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "cannot release a GPU resource");
    }
}
