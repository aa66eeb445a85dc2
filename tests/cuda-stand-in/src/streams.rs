//! The driver's functions for streams.

use crate::call::{Call, answer, put};
use crate::event::recorded;
use crate::result::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY, CUresult};
use crate::state::changed;
use crate::stream::{self, Stream};
use crate::trace::Trace;
use crate::work::Work;
use std::ffi::c_uint;

/// The stream keeps no order with the default stream.
pub const CU_STREAM_NON_BLOCKING: c_uint = 1;

/// Creates a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, flags: c_uint) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuStreamCreate", &[flags.into()])?;
        if flags & !CU_STREAM_NON_BLOCKING != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let created = Stream::create(&mut call, flags == 0);
        // SAFETY: the driver's contract.
        unsafe { put(stream, created) }
    })
}

/// Destroys a stream; its remaining work still runs.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(handle: usize) -> CUresult {
    answer(|| {
        let mut call = Call::of_context("cuStreamDestroy_v2", &[]);
        if handle == 0 {
            alarm!("{}: the default stream cannot be destroyed", call.function);
        }
        stream::named(&mut call, handle);
        if let Some(stream) = call.state.streams.get_mut(&handle) {
            stream.owned.given_up = true;
        }
        let mut call = call.unless_failing()?;
        if let Some(stream) = call.state.streams.get_mut(&handle) {
            stream.destroyed = true;
            stream.closing = true;
        }
        changed();
        Ok(())
    })
}

/// Waits for the stream's work.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(handle: usize) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuStreamSynchronize", &[])?;
        let stream = stream::named(&mut call, handle);
        let sequence = stream::end(&call.state, stream);
        call.wait_for(stream, sequence).map(drop)
    })
}

/// Returns whether the stream's work is done.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(handle: usize) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuStreamQuery", &[])?;
        let stream = stream::named(&mut call, handle);
        let sequence = stream::end(&call.state, stream);
        call.look_at(stream, sequence)?.then_some(()).ok_or(CUDA_ERROR_NOT_READY)
    })
}

/// Makes later work of the stream wait for an event, which may belong to another context.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(handle: usize, event: usize, flags: c_uint) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuStreamWaitEvent", &[flags.into()])?;
        let stream = stream::named(&mut call, handle);
        if let Some((other, sequence)) = recorded(&call, event) {
            let trace = Trace::after(other, sequence);
            stream::submit(&mut call, stream, trace, Work::Wait { stream: other, sequence });
        }
        Ok(())
    })
}
