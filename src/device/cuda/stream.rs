//! Streams, which are queues of work for a GPU, and the events in them.

use super::context::{Context, Entered};
use super::functions::call;
use crate::error::{Result, Size};
use cudarc::driver::sys;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

/// The stream and the legacy default stream of the process do not wait for each other.
const NON_BLOCKING: u32 = 1;
/// The event records no time stamp, and a wait for it spins, which it does only while copies are under way.
/// On one H200 loads from the page cache reached 46.2 GB/s with it and 45.4 GB/s with waits that sleep, for as
/// much processor time (medians of 6).
const WITHOUT_TIMING: u32 = 2;

/// A queue of work that a GPU executes in order; destroyed on drop.
pub(super) struct Stream {
    context: Arc<Context>,
    handle: sys::CUstream,
    /// Whether the host memory of its copies is registered with CUDA.
    pinned: bool,
}

// SAFETY: a stream is a handle; the driver allows its use from any thread with the context current.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// Creates an empty stream. `pinned` says whether the host memory of its copies is registered.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(entered: &Entered<'_>, pinned: bool) -> Result<Arc<Self>> {
        let mut handle = null_mut();
        // SAFETY: the pointer is valid for the answer; a context is current.
        let answer = unsafe { call!(cuStreamCreate(&raw mut handle, NON_BLOCKING)) };
        entered.check(answer, "create a stream")?;
        Ok(Arc::new(Self { context: Arc::clone(entered.context()), handle, pinned }))
    }

    /// The driver's handle.
    pub fn handle(&self) -> sys::CUstream {
        self.handle
    }

    /// Queues a copy of `from` to `to` on the GPU. If the memory is not registered, waits for all
    /// queued work, which may use the target, and for the copy.
    ///
    /// # Errors
    /// If the driver fails, also at work that was queued earlier.
    ///
    /// # Safety
    /// `from` stays valid and unchanged until the copy has finished, which a wait for a later event or
    /// [`wait`](Self::wait) establishes. The target lies within memory of the current context, and
    /// nothing but earlier work of this stream uses it until then.
    pub unsafe fn copy_in(&self, entered: &Entered<'_>, to: u64, from: &[u8]) -> Result<()> {
        if !self.pinned {
            self.wait(entered)?;
            // SAFETY: the caller guarantees it, and nothing is queued.
            return unsafe { copy_in_now(entered, to, from) };
        }
        let source = from.as_ptr().cast::<c_void>();
        // SAFETY: the caller guarantees it.
        let answer = unsafe { call!(cuMemcpyHtoDAsync_v2(to, source, from.len(), self.handle)) };
        entered.check(answer, format_args!("copy {} to it", Size(from.len() as u64)))
    }

    /// Queues a copy of the bytes at `from` on the GPU to `to`, or waits as
    /// [`copy_in`](Self::copy_in) does.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in).
    ///
    /// # Safety
    /// `to` stays valid and untouched until the copy has finished. The source lies within memory of
    /// the current context, and nothing but earlier work of this stream writes to it until then.
    pub unsafe fn copy_out(&self, entered: &Entered<'_>, to: &mut [u8], from: u64) -> Result<()> {
        if !self.pinned {
            self.wait(entered)?;
            // SAFETY: the caller guarantees it, and nothing is queued.
            return unsafe { copy_out_now(entered, to, from) };
        }
        let target = to.as_mut_ptr().cast::<c_void>();
        // SAFETY: the caller guarantees it.
        let answer = unsafe { call!(cuMemcpyDtoHAsync_v2(target, from, to.len(), self.handle)) };
        entered.check(answer, format_args!("copy {} from it", Size(to.len() as u64)))
    }

    /// Waits until all queued work has finished.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn wait(&self, entered: &Entered<'_>) -> Result<()> {
        // SAFETY: the stream lives, and its context is current.
        entered.check(unsafe { call!(cuStreamSynchronize(self.handle)) }, "wait for its work")
    }

    /// Waits as [`wait`](Self::wait) does, but logs a failure instead of returning it.
    pub fn drain(&self) {
        // SAFETY: the stream lives, and its context is current during the call.
        self.context
            .release("wait for its work", || unsafe { call!(cuStreamSynchronize(self.handle)) });
    }
}

/// Copies `from`, which may be any host memory, to `to` on the GPU and waits for the copy.
///
/// # Errors
/// If the driver fails.
///
/// # Safety
/// The target lies within memory of the current context, and nothing else uses it meanwhile.
pub(super) unsafe fn copy_in_now(entered: &Entered<'_>, to: u64, from: &[u8]) -> Result<()> {
    // SAFETY: the caller guarantees it; `from` is borrowed for the whole call.
    let answer = unsafe { call!(cuMemcpyHtoD_v2(to, from.as_ptr().cast(), from.len())) };
    entered.check(answer, format_args!("copy {} to it", Size(from.len() as u64)))?;
    // The call returns once the bytes have left host memory. They have arrived when the legacy
    // default stream has finished ("API synchronization behavior" in the driver API's reference).
    // SAFETY: the legacy default stream always exists.
    let answer = unsafe { call!(cuStreamSynchronize(null_mut())) };
    entered.check(answer, format_args!("copy {} to it", Size(from.len() as u64)))
}

/// Copies the bytes at `from` on the GPU to host memory and waits for the copy.
///
/// # Errors
/// If the driver fails.
///
/// # Safety
/// The source lies within memory of the current context, and nothing else writes to it meanwhile.
pub(super) unsafe fn copy_out_now(entered: &Entered<'_>, to: &mut [u8], from: u64) -> Result<()> {
    // SAFETY: the caller guarantees it; `to` is exclusive for the whole call.
    let answer = unsafe { call!(cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), from, to.len())) };
    entered.check(answer, format_args!("copy {} from it", Size(to.len() as u64)))
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        self.context
            .release("destroy a stream", || unsafe { call!(cuStreamDestroy_v2(self.handle)) });
    }
}

/// A point in a stream that can be waited for; destroyed on drop.
pub(super) struct Event {
    context: Arc<Context>,
    handle: sys::CUevent,
}

// SAFETY: an event is a handle; the driver allows its use from any thread with the context current.
unsafe impl Send for Event {}

impl Event {
    /// Records an event after the work that is queued in `stream` now.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn record(entered: &Entered<'_>, stream: &Stream) -> Result<Self> {
        let mut handle = null_mut();
        // SAFETY: the pointer is valid for the answer; a context is current.
        let answer = unsafe { call!(cuEventCreate(&raw mut handle, WITHOUT_TIMING)) };
        entered.check(answer, "create an event")?;
        let event = Self { context: Arc::clone(entered.context()), handle };
        // SAFETY: event and stream live and are of the current context.
        entered.check(unsafe { call!(cuEventRecord(handle, stream.handle)) }, "record an event")?;
        Ok(event)
    }

    /// Waits until the GPU has finished all work before the event.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn wait(&self, entered: &Entered<'_>) -> Result<()> {
        // SAFETY: the event lives, and its context is current.
        entered.check(unsafe { call!(cuEventSynchronize(self.handle)) }, "wait for its copies")
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        self.context
            .release("destroy an event", || unsafe { call!(cuEventDestroy_v2(self.handle)) });
    }
}
