//! Events: points in a stream, which tell the host that the work before them is complete.

use crate::call::{Call, answer, put};
use crate::result::{
    CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY, CUresult,
};
use crate::state::{Kind, Owned, State};
use crate::stream;
use crate::trace::Trace;
use crate::work::Work;
use std::ffi::c_uint;
use std::time::Instant;

/// The event records no time.
pub const CU_EVENT_DISABLE_TIMING: c_uint = 2;
/// Waits for the event sleep.
const FLAGS: c_uint = 1 | CU_EVENT_DISABLE_TIMING;

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) owned: Owned,
    timed: bool,
    /// The position of the last record.
    recorded: Option<(usize, u64)>,
    time: Option<Instant>,
}

/// The position of the event's last record; raises the alarm for an invalid handle.
pub(crate) fn recorded(call: &Call, handle: usize) -> Option<(usize, u64)> {
    match call.state.events.get(&handle) {
        Some(event) => event.recorded,
        None => Kind::Event.missing(call.function, handle),
    }
}

/// The event; raises the alarm unless it belongs to the current context.
fn own(call: &mut Call, handle: usize) -> &mut Event {
    let function = call.function;
    match call.state.events.get(&handle) {
        Some(event) => call.same_context("event", event.owned.context),
        None => Kind::Event.missing(function, handle),
    }
    match call.state.events.get_mut(&handle) {
        Some(event) => event,
        None => Kind::Event.missing(function, handle),
    }
}

/// Records that a worker has reached the event.
pub(crate) fn reached(state: &mut State, handle: usize, stream: usize, sequence: u64) {
    if let Some(event) = state.events.get_mut(&handle)
        && event.recorded == Some((stream, sequence))
    {
        event.time = Some(Instant::now());
    }
}

/// Creates an event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, flags: c_uint) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuEventCreate", &[flags.into()])?;
        if flags & !FLAGS != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let handle = Kind::Event.new_handle();
        let owned = Owned::by(call.context);
        let timed = flags & CU_EVENT_DISABLE_TIMING == 0;
        call.state.events.insert(handle, Event { owned, timed, recorded: None, time: None });
        // SAFETY: the driver's contract.
        unsafe { put(event, handle) }
    })
}

/// Records the event after the work that is queued in the stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuEventRecord", &[])?;
        own(&mut call, event);
        let stream = stream::named(&mut call, stream);
        let sequence = stream::submit(&mut call, stream, Trace::default(), Work::Record { event });
        let event = own(&mut call, event);
        event.recorded = Some((stream, sequence));
        event.time = None;
        stream::linger(call, stream, sequence);
        Ok(())
    })
}

/// Returns whether the work before the event is complete.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: usize) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuEventQuery", &[])?;
        match own(&mut call, event).recorded {
            Some((stream, sequence)) => {
                call.look_at(stream, sequence)?.then_some(()).ok_or(CUDA_ERROR_NOT_READY)
            }
            None => Ok(()),
        }
    })
}

/// Waits for the work before the event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: usize) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuEventSynchronize", &[])?;
        match own(&mut call, event).recorded {
            Some((stream, sequence)) => call.wait_for(stream, sequence).map(drop),
            None => Ok(()),
        }
    })
}

/// Returns the milliseconds between two completed events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(
    milliseconds: *mut f32,
    start: usize,
    end: usize,
) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuEventElapsedTime", &[])?;
        let mut times = [start, end].map(|event| {
            let event = own(&mut call, event);
            let usable = event.timed && event.recorded.is_some();
            usable.then_some(event.time)
        });
        let [Some(start), Some(end)] = &mut times else {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        };
        let (Some(start), Some(end)) = (start, end) else {
            return Err(CUDA_ERROR_NOT_READY);
        };
        let forward = end.saturating_duration_since(*start).as_secs_f32();
        let backward = start.saturating_duration_since(*end).as_secs_f32();
        // SAFETY: the driver's contract.
        unsafe { put(milliseconds, (forward - backward) * 1000.0) }
    })
}

/// Destroys an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: usize) -> CUresult {
    answer(|| {
        let mut call = Call::of_context("cuEventDestroy_v2", &[]);
        own(&mut call, event).owned.given_up = true;
        let mut call = call.unless_failing()?;
        call.state.events.remove(&event);
        Ok(())
    })
}
