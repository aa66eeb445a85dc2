//! The common part of every call: the log, the current context, an injected failure, and the error
//! of failed work.

use crate::context::current;
use crate::result::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_INITIALIZED, CUDA_SUCCESS, CUresult};
use crate::state::{Locked, changed, lock, wait};
use crate::stream;
use std::io::Write;
use std::time::Duration;

/// The longest time that a wait sleeps before it checks its condition again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A call in progress, which holds the lock.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: &'static str,
    pub(crate) state: Locked,
    /// The current context, or 0 in a call that needs none.
    pub(crate) context: usize,
}

/// Converts the result of a function's body to the driver's result.
pub(crate) fn answer(body: impl FnOnce() -> Result<(), CUresult>) -> CUresult {
    body().err().unwrap_or(CUDA_SUCCESS)
}

/// Returns a value through the caller's pointer.
///
/// # Safety
/// `place` is null or may be written to.
pub(crate) unsafe fn put<T>(place: *mut T, value: T) -> Result<(), CUresult> {
    if place.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller guarantees it.
    unsafe { place.write(value) };
    Ok(())
}

impl Call {
    /// A call that needs no context.
    pub(crate) fn free(function: &'static str, sizes: &[u64]) -> Result<Self, CUresult> {
        let mut call = Self::begin(function, sizes);
        if call.state.process == 0 && !matches!(function, "cuInit" | "cuDriverGetVersion") {
            return Err(CUDA_ERROR_NOT_INITIALIZED);
        }
        match call.ordered_failure() {
            Some(result) => Err(result),
            None => Ok(call),
        }
    }

    /// A call in the current context.
    pub(crate) fn in_context(function: &'static str, sizes: &[u64]) -> Result<Self, CUresult> {
        Self::of_context(function, sizes).unless_failing()
    }

    /// As [`Self::in_context`], for calls that check an object before they may fail.
    pub(crate) fn of_context(function: &'static str, sizes: &[u64]) -> Self {
        let mut call = Self::begin(function, sizes);
        let Some(context) = current() else {
            alarm!("{function}: no context is current on this thread");
        };
        if !call.state.contexts.contains_key(&context) {
            alarm!("{function}: the context that is current on this thread was released");
        }
        call.context = context;
        call
    }

    /// Counts and logs the call.
    pub(crate) fn begin(function: &'static str, sizes: &[u64]) -> Self {
        let mut state = lock();
        // The real driver does not work in a child of its process, and says so at best.
        if ![0, std::process::id()].contains(&state.process) && function != "cuInit" {
            alarm!("{function}: called in a child of the process that started the driver");
        }
        if let Some(log) = &state.orders().log {
            // SAFETY: the call only returns a number.
            let thread = unsafe { libc::gettid() };
            let sizes: String = sizes.iter().map(|size| format!(" {size}")).collect();
            let line = format!("{function} {thread}{sizes}\n");
            (&mut &*log).write_all(line.as_bytes()).ok(); // a full disk is not an incorrect use
        }
        Call { function, state, context: 0 }
    }

    /// Returns the error that is injected into this call, or that of failed work.
    pub(crate) fn unless_failing(mut self) -> Result<Self, CUresult> {
        if let Some(result) = self.ordered_failure() {
            return Err(result);
        }
        self.unless_failed()
    }

    /// Returns the error of failed work, after all work has ended, because the caller may then free
    /// the memory.
    pub(crate) fn unless_failed(mut self) -> Result<Self, CUresult> {
        let Some(result) = self.state.failed(self.context) else { return Ok(self) };
        while self.state.contexts.get(&self.context).is_some_and(|context| context.running > 0) {
            self.state = wait(self.state, LOOK_AGAIN);
        }
        Err(result)
    }

    /// The failure that is injected into this call of its function.
    pub(crate) fn ordered_failure(&mut self) -> Option<u32> {
        let orders = self.state.orders();
        let count = self.state.counts.entry(self.function).or_default();
        *count += 1;
        orders.failure(self.function, *count, false)
    }

    /// Waits until the stream has completed its work up to `sequence`, which then is known.
    pub(crate) fn wait_for(mut self, stream: usize, sequence: u64) -> Result<Self, CUresult> {
        stream::want(&mut self.state, stream, sequence);
        changed();
        while !stream::is_done(&self.state, stream, sequence) {
            self.state = wait(self.state, LOOK_AGAIN);
        }
        let mut call = self.unless_failed()?;
        stream::reveal(&mut call.state, stream, sequence);
        Ok(call)
    }

    /// Whether the stream has completed its work up to `sequence`. Completed work then is known.
    pub(crate) fn look_at(self, stream: usize, sequence: u64) -> Result<bool, CUresult> {
        let mut call = self.unless_failed()?;
        let done = stream::is_done(&call.state, stream, sequence);
        if done {
            stream::reveal(&mut call.state, stream, sequence);
        }
        Ok(done)
    }

    /// Raises the alarm for an object of another context.
    pub(crate) fn same_context(&self, what: &str, context: usize) {
        if context != self.context {
            alarm!("{}: the {what} belongs to another context than the current one", self.function);
        }
    }
}
