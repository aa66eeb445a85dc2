//! The driver's functions that copy and fill memory.
//!
//! Calls without a stream use the default stream. As with the real driver they need not wait for
//! the device: a copy from memory that is not registered returns once its bytes are staged, and a
//! fill returns at once. Only blocking streams keep the order with the default stream.

use crate::call::{Call, answer};
use crate::result::CUresult;
use crate::stream;
use crate::trace::{HostSource, Trace};
use crate::work::{Source, Work};
use std::ffi::{c_uchar, c_void};

/// The content of a copy's target memory until the copy runs.
const NOT_YET: u8 = 0xB7;
/// The most bytes that are staged; a larger copy waits.
const STAGED_BYTES: u64 = 1 << 20;

/// Whether the next copy to a device, or read of cuFile, is the one that flips a bit.
pub(crate) fn flips(call: &mut Call) -> bool {
    call.state.copies_to_device += 1;
    call.state.orders().flip == Some(call.state.copies_to_device)
}

/// The first address of the registration; raises the alarm if there is none.
fn registered(call: &Call, start: u64, bytes: u64) -> u64 {
    let Some(base) = call.state.host_range(call.function, call.context, start, bytes) else {
        alarm!("{}: {bytes} bytes of host memory are not registered", call.function);
    };
    base
}

fn device(call: &Call, start: u64, bytes: u64) -> u64 {
    call.state.device_range(call.function, call.context, start, bytes)
}

/// The trace and the source of a copy from registered memory.
fn from_host(start: u64, bytes: u64, uses: Vec<u64>) -> (Trace, Source) {
    // SAFETY: the range is registered, so readable.
    let source = unsafe { HostSource::new(start, bytes) };
    (Trace { source: Some(source), ..Trace::using(uses) }, Source::Host(source))
}

/// Copies from registered host memory, in the order of a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(
    target: u64,
    source: *const c_void,
    bytes: usize,
    handle: usize,
) -> CUresult {
    answer(|| {
        let bytes = bytes as u64;
        let mut call = Call::in_context("cuMemcpyHtoDAsync_v2", &[bytes])?;
        let stream = stream::named(&mut call, handle);
        if bytes == 0 {
            return Ok(());
        }
        let source = source as u64;
        let uses = vec![registered(&call, source, bytes), device(&call, target, bytes)];
        let flip = flips(&mut call);
        let (trace, source) = from_host(source, bytes, uses);
        let work = Work::Copy { source, target, bytes, flip };
        stream::leave(call, stream, trace, work);
        Ok(())
    })
}

/// Copies from host memory, registered or not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(
    target: u64,
    source: *const c_void,
    bytes: usize,
) -> CUresult {
    answer(|| {
        let bytes = bytes as u64;
        let mut call = Call::in_context("cuMemcpyHtoD_v2", &[bytes])?;
        if bytes == 0 {
            return Ok(());
        }
        let (start, device) = (source as u64, device(&call, target, bytes));
        let base = call.state.host_range(call.function, call.context, start, bytes);
        let flip = flips(&mut call);
        let (trace, source) = match base {
            Some(base) => from_host(start, bytes, vec![base, device]),
            None => {
                // SAFETY: the driver's contract.
                let staged = unsafe { std::slice::from_raw_parts(source.cast(), bytes as usize) };
                let trace = Trace::using(vec![device]);
                (trace, Source::Staged(staged.into()))
            }
        };
        let waits = base.is_some() || bytes > STAGED_BYTES;
        in_default_stream(call, trace, Work::Copy { source, target, bytes, flip }, waits)
    })
}

/// Runs the work of a call without a stream, and waits for it if required.
fn in_default_stream(
    mut call: Call,
    trace: Trace,
    work: Work,
    waits: bool,
) -> Result<(), CUresult> {
    let stream = stream::default_stream(&mut call);
    let sequence = stream::submit(&mut call, stream, trace, work);
    if waits {
        return call.wait_for(stream, sequence).map(drop);
    }
    stream::linger(call, stream, sequence);
    Ok(())
}

/// Copies to registered host memory, in the order of a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    target: *mut c_void,
    source: u64,
    bytes: usize,
    handle: usize,
) -> CUresult {
    answer(|| {
        let bytes = bytes as u64;
        let mut call = Call::in_context("cuMemcpyDtoHAsync_v2", &[bytes])?;
        let stream = stream::named(&mut call, handle);
        if bytes == 0 {
            return Ok(());
        }
        let uses = vec![registered(&call, target as u64, bytes), device(&call, source, bytes)];
        // SAFETY: the driver's contract: the memory is registered and may be written by the copy.
        unsafe { target.cast::<u8>().write_bytes(NOT_YET, bytes as usize) };
        let trace = Trace::using(uses);
        let (source, target) = (Source::Device(source), target as u64);
        let work = Work::Copy { source, target, bytes, flip: false };
        stream::leave(call, stream, trace, work);
        Ok(())
    })
}

/// Copies to host memory, registered or not, and waits for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(
    target: *mut c_void,
    source: u64,
    bytes: usize,
) -> CUresult {
    answer(|| {
        let (target, bytes) = (target as u64, bytes as u64);
        let call = Call::in_context("cuMemcpyDtoH_v2", &[bytes])?;
        if bytes == 0 {
            return Ok(());
        }
        let mut uses = vec![device(&call, source, bytes)];
        uses.extend(call.state.host_range(call.function, call.context, target, bytes));
        let trace = Trace::using(uses);
        let source = Source::Device(source);
        in_default_stream(call, trace, Work::Copy { source, target, bytes, flip: false }, true)
    })
}

/// Copies within the device, in the order of a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(
    target: u64,
    source: u64,
    bytes: usize,
    handle: usize,
) -> CUresult {
    answer(|| {
        let bytes = bytes as u64;
        let mut call = Call::in_context("cuMemcpyDtoDAsync_v2", &[bytes])?;
        let stream = stream::named(&mut call, handle);
        if bytes == 0 {
            return Ok(());
        }
        let uses = vec![device(&call, source, bytes), device(&call, target, bytes)];
        let trace = Trace::using(uses);
        let work = Work::Copy { source: Source::Device(source), target, bytes, flip: false };
        stream::leave(call, stream, trace, work);
        Ok(())
    })
}

/// Fills device memory, in the order of a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(
    target: u64,
    value: c_uchar,
    bytes: usize,
    handle: usize,
) -> CUresult {
    answer(|| {
        let bytes = bytes as u64;
        let mut call = Call::in_context("cuMemsetD8Async", &[bytes])?;
        let stream = stream::named(&mut call, handle);
        if bytes == 0 {
            return Ok(());
        }
        let trace = Trace::using(vec![device(&call, target, bytes)]);
        stream::leave(call, stream, trace, Work::Fill { target, bytes, value });
        Ok(())
    })
}

/// Fills device memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(target: u64, value: c_uchar, bytes: usize) -> CUresult {
    answer(|| {
        let bytes = bytes as u64;
        let call = Call::in_context("cuMemsetD8_v2", &[bytes])?;
        if bytes == 0 {
            return Ok(());
        }
        let trace = Trace::using(vec![device(&call, target, bytes)]);
        in_default_stream(call, trace, Work::Fill { target, bytes, value }, false)
    })
}
