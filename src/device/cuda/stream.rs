//! Queues of work for a GPU, and marks in them.

use super::context::{Context, Entered, log};
use crate::error::Result;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// The stream does not wait for the legacy default stream of the process, nor that for it.
const NON_BLOCKING: u32 = 1;
/// Waiting for the event sleeps instead of spinning; it takes no time stamps.
const BLOCKING_SYNC_WITHOUT_TIMING: u32 = 1 | 2;

/// Work that a GPU does in order; destroyed on drop.
pub(super) struct Stream {
    context: Arc<Context>,
    raw: sys::CUstream,
}

// SAFETY: a stream is a handle; the driver allows its use from any thread with the context current.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// An empty one.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn new(entered: &Entered<'_>) -> Result<Arc<Self>> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the answer; a context is current.
        let answer = unsafe { sys::cuStreamCreate(raw.as_mut_ptr(), NON_BLOCKING) };
        entered.check(answer, "create a stream")?;
        // SAFETY: written by the successful call.
        let raw = unsafe { raw.assume_init() };
        Ok(Arc::new(Self { context: Arc::clone(entered.context()), raw }))
    }

    /// The context it is of.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The driver's handle.
    pub fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// Queues a copy of `from` to `to` on the GPU.
    ///
    /// # Errors
    /// What the driver answers, also for work that was queued earlier.
    ///
    /// # Safety
    /// `from` is registered host memory, and stays valid and unchanged until the copy is done, which
    /// an event recorded later, or [`wait`](Self::wait), tells. The target lies within memory of the
    /// current context, and nothing else uses it until then.
    pub unsafe fn copy_in(&self, entered: &Entered<'_>, to: u64, from: &[u8]) -> Result<()> {
        let source = from.as_ptr().cast::<c_void>();
        // SAFETY: as promised by the caller.
        let answer = unsafe { sys::cuMemcpyHtoDAsync_v2(to, source, from.len(), self.raw) };
        entered.check(answer, format_args!("copy {} bytes to it", from.len()))
    }

    /// Queues a copy from `from` on the GPU to `to`.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in).
    ///
    /// # Safety
    /// `to` is registered host memory, and stays valid and untouched until the copy is done. The
    /// source lies within memory of the current context, and nothing else writes to it until then.
    pub unsafe fn copy_out(&self, entered: &Entered<'_>, to: &mut [u8], from: u64) -> Result<()> {
        let target = to.as_mut_ptr().cast::<c_void>();
        // SAFETY: as promised by the caller.
        let answer = unsafe { sys::cuMemcpyDtoHAsync_v2(target, from, to.len(), self.raw) };
        entered.check(answer, format_args!("copy {} bytes from it", to.len()))
    }

    /// Waits until all that was queued is done.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn wait(&self, entered: &Entered<'_>) -> Result<()> {
        // SAFETY: the stream lives, and its context is current.
        entered.check(unsafe { sys::cuStreamSynchronize(self.raw) }, "wait for its work")
    }
}

/// Copies `from`, which may be any host memory, to `to` on the GPU, and waits for it.
///
/// # Errors
/// What the driver answers.
///
/// # Safety
/// The target lies within memory of the current context, and nothing else uses it meanwhile.
pub(super) unsafe fn copy_in_now(entered: &Entered<'_>, to: u64, from: &[u8]) -> Result<()> {
    // SAFETY: as promised by the caller; `from` is borrowed for the whole call.
    let answer = unsafe { sys::cuMemcpyHtoD_v2(to, from.as_ptr().cast(), from.len()) };
    entered.check(answer, format_args!("copy {} bytes to it", from.len()))?;
    // It returns when the bytes have left host memory; when they are there, the stream of all calls
    // that name none is done ("API synchronization behavior" in the driver API's reference).
    // SAFETY: the legacy default stream always is.
    let answer = unsafe { sys::cuStreamSynchronize(std::ptr::null_mut()) };
    entered.check(answer, format_args!("copy {} bytes to it", from.len()))
}

/// Copies what is at `from` on the GPU to host memory, and waits for it.
///
/// # Errors
/// What the driver answers.
///
/// # Safety
/// The source lies within memory of the current context, and nothing else writes to it meanwhile.
pub(super) unsafe fn copy_out_now(entered: &Entered<'_>, to: &mut [u8], from: u64) -> Result<()> {
    // SAFETY: as promised by the caller; `to` is exclusive for the whole call.
    let answer = unsafe { sys::cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), from, to.len()) };
    entered.check(answer, format_args!("copy {} bytes from it", to.len()))
}

impl Drop for Stream {
    fn drop(&mut self) {
        let destroy = |entered: Entered<'_>| {
            // SAFETY: created once, destroyed once.
            entered.check(unsafe { sys::cuStreamDestroy_v2(self.raw) }, "destroy a stream")
        };
        log(self.context.enter().and_then(destroy));
    }
}

/// A mark in a stream; destroyed on drop.
pub(super) struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: an event is a handle; the driver allows its use from any thread with the context current.
unsafe impl Send for Event {}

impl Event {
    /// A mark behind all that is queued in `stream` now.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn record(entered: &Entered<'_>, stream: &Stream) -> Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the answer; a context is current.
        let answer = unsafe { sys::cuEventCreate(raw.as_mut_ptr(), BLOCKING_SYNC_WITHOUT_TIMING) };
        entered.check(answer, "create an event")?;
        // SAFETY: written by the successful call.
        let raw = unsafe { raw.assume_init() };
        let event = Self { context: Arc::clone(entered.context()), raw };
        // SAFETY: event and stream live and are of the current context.
        entered.check(unsafe { sys::cuEventRecord(raw, stream.raw) }, "record an event")?;
        Ok(event)
    }

    /// Waits until the GPU has passed it.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn wait(&self, entered: &Entered<'_>) -> Result<()> {
        // SAFETY: the event lives, and its context is current.
        entered.check(unsafe { sys::cuEventSynchronize(self.raw) }, "wait for its copies")
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let destroy = |entered: Entered<'_>| {
            // SAFETY: created once, destroyed once.
            entered.check(unsafe { sys::cuEventDestroy_v2(self.raw) }, "destroy an event")
        };
        log(self.context.enter().and_then(destroy));
    }
}
