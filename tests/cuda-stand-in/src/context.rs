//! Primary contexts, and which context is current on each thread.
//!
//! The last release waits for the streams' work, raises the alarm if objects are still alive, and
//! ends the worker threads. Once no device has a context, the state is reset.

use crate::call::{Call, LOOK_AGAIN, answer, put};
use crate::device::checked;
use crate::leaks;
use crate::result::{CUDA_ERROR_INVALID_CONTEXT, CUresult};
use crate::state::{Context, Kind, Locked, State, changed, lock, wait};
use crate::stream;
use std::cell::RefCell;
use std::ffi::{c_int, c_uint};
use std::sync::Once;
use std::thread;
use std::time::Duration;

/// The device of a context that is ending.
const NO_DEVICE: i32 = -1;

thread_local! {
    /// The stack of contexts of this thread; the last one is current.
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The context that is current on this thread.
pub(crate) fn current() -> Option<usize> {
    STACK.try_with(|stack| stack.borrow().last().copied()).ok().flatten()
}

/// Takes a reference to the primary context of a device; the first one creates it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDevicePrimaryCtxRetain", &[device as u64])?;
        checked(&mut call, device)?;
        let handle = match call.state.context_of_device(device) {
            Some(handle) => share(call.state, handle),
            None => create(call, device),
        };
        // SAFETY: the driver's contract.
        unsafe { put(context, handle) }
    })
}

fn share(mut state: Locked, handle: usize) -> usize {
    if let Some(context) = state.contexts.get_mut(&handle) {
        context.references += 1;
    }
    while state.contexts.get(&handle).is_some_and(|context| !context.ready) {
        state = wait(state, LOOK_AGAIN);
    }
    handle
}

fn create(mut call: Call, device: c_int) -> usize {
    check_at_exit();
    let orders = call.state.orders();
    let (time, after) = (orders.context_time, orders.context_after.clone());
    let handle = Kind::Context.new_handle();
    let context = Context {
        device,
        references: 1,
        ready: false,
        failed: None,
        running: 0,
        default_stream: None,
    };
    call.state.contexts.insert(handle, context);
    drop(call);
    thread::sleep(time);
    while after.as_ref().is_some_and(|file| !file.exists()) {
        thread::sleep(Duration::from_millis(1));
    }
    if let Some(context) = lock().contexts.get_mut(&handle) {
        context.ready = true;
    }
    changed();
    handle
}

/// Releases a reference to the primary context of a device; the last release ends the context.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDevicePrimaryCtxRelease_v2", &[device as u64])?;
        checked(&mut call, device)?;
        let Some(handle) = call.state.context_of_device(device) else {
            alarm!("{}: device {device} has no primary context: a release too many", call.function);
        };
        let Some(context) = call.state.contexts.get_mut(&handle) else {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        };
        context.references -= 1;
        if context.references == 0 {
            context.device = NO_DEVICE; // retaining it meanwhile creates a new one
            end(call, handle, device);
        }
        Ok(())
    })
}

fn end(call: Call, handle: usize, device: c_int) {
    let mut state = stream::let_all_finish(call.state, handle);
    let left = leaks::of_context(&state, handle);
    if !left.is_empty() {
        alarm!("{}: device {device} is left with {}", call.function, left.join(", "));
    }
    for worker in stream::close_all(&mut state, handle) {
        drop(state);
        changed();
        worker.join().ok(); // a panic has raised the alarm
        state = lock();
    }
    forget(&mut state, handle);
    state.contexts.remove(&handle);
    if state.contexts.is_empty() {
        state.begin_anew();
    }
}

/// Drops the objects of the context; only those whose release failed are left.
fn forget(state: &mut State, context: usize) {
    state.streams.retain(|_, stream| stream.owned.context != context);
    state.events.retain(|_, event| event.owned.context != context);
    state.modules.retain(|_, module| module.owned.context != context);
    let State { modules, functions, .. } = state;
    functions.retain(|_, function| modules.contains_key(&function.module));
    state.allocations.retain(|_, allocation| allocation.owned.context != context);
    state.registrations.retain(|_, registration| registration.owned.context != context);
}

fn check_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the library is never unloaded, so the function exists until the process ends.
        unsafe { libc::atexit(at_exit) };
    });
}

extern "C" fn at_exit() {
    let state = lock();
    if let Some((handle, context)) = state.contexts.iter().next() {
        let mut left = vec![format!("{} references to its context", context.references)];
        left.extend(leaks::of_context(&state, *handle));
        alarm!("at exit: device {} is left with {}", context.device, left.join(", "));
    }
}

/// Whether the device's primary context is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: c_int,
    flags: *mut c_uint,
    active: *mut c_int,
) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDevicePrimaryCtxGetState", &[device as u64])?;
        checked(&mut call, device)?;
        let alive = call.state.context_of_device(device).is_some();
        // SAFETY: the driver's contract, here and below.
        unsafe { put(flags, 0)? };
        // SAFETY: as above.
        unsafe { put(active, c_int::from(alive)) }
    })
}

/// Replaces the current context of this thread; null leaves the thread without one.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> CUresult {
    answer(|| {
        let call = Call::free("cuCtxSetCurrent", &[])?;
        if context != 0 {
            must_live(&call, context);
        }
        STACK.with_borrow_mut(|stack| {
            stack.pop();
            stack.extend(Some(context).filter(|context| *context != 0));
        });
        Ok(())
    })
}

fn must_live(call: &Call, context: usize) {
    if !call.state.contexts.contains_key(&context) {
        Kind::Context.missing(call.function, context);
    }
}

/// Returns the current context of this thread, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> CUresult {
    answer(|| {
        drop(Call::free("cuCtxGetCurrent", &[])?);
        // SAFETY: the driver's contract.
        unsafe { put(context, current().unwrap_or(0)) }
    })
}

/// Pushes the context on the stack of this thread, which makes it current.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: usize) -> CUresult {
    answer(|| {
        let call = Call::free("cuCtxPushCurrent_v2", &[])?;
        must_live(&call, context);
        STACK.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    })
}

/// Pops the current context of this thread and returns it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut usize) -> CUresult {
    answer(|| {
        drop(Call::free("cuCtxPopCurrent_v2", &[])?);
        let popped = STACK.with_borrow_mut(Vec::pop).ok_or(CUDA_ERROR_INVALID_CONTEXT)?;
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the driver's contract.
        unsafe { put(context, popped) }
    })
}

/// Waits for all work of the current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuCtxSynchronize", &[])?;
        for (stream, sequence) in stream::ends(&call.state, call.context) {
            call = call.wait_for(stream, sequence)?;
        }
        Ok(())
    })
}
