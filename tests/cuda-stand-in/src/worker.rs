//! The worker of a stream: takes its operations in order, each when its delay is over, and runs
//! them outside the lock.

use crate::call::LOOK_AGAIN;
use crate::result::CUresult;
use crate::state::{Locked, changed, lock, wait};
use crate::stream::{Operation, is_done};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Starts the worker of a stream that is about to be there.
pub(crate) fn start(context: usize, stream: usize) -> JoinHandle<()> {
    let worker = move || {
        if catch_unwind(AssertUnwindSafe(|| work(context, stream))).is_err() {
            alarm!("the worker of a stream panicked");
        }
    };
    let started = thread::Builder::new().name("stand-in stream".to_owned()).spawn(worker);
    started.unwrap_or_else(|error| alarm!("cuStreamCreate: no thread for the stream: {error}"))
}

fn work(context: usize, stream: usize) {
    let mut state = lock();
    while let Some((mut locked, operation)) = next(state, stream) {
        let fails = operation.fails;
        if let Some(context) = locked.contexts.get_mut(&context) {
            context.running += 1;
        }
        drop(locked);
        if fails.is_none() {
            operation.work.run(&operation, context, stream);
        }
        state = finish(context, stream, operation.sequence, fails);
    }
}

/// The next operation, once it may begin; none when no more will come.
fn next(mut state: Locked, handle: usize) -> Option<(Locked, Operation)> {
    loop {
        let stream = state.streams.get_mut(&handle)?;
        let wanted = stream.wanted();
        let Some(operation) = stream.queue.front_mut() else {
            if stream.closing {
                return None;
            }
            state = wait(state, LOOK_AGAIN);
            continue;
        };
        operation.first.get_or_insert_with(Instant::now);
        let left = operation.left(wanted);
        let after = operation.work.after();
        let ready = after.is_none_or(|(stream, sequence)| is_done(&state, stream, sequence));
        if !ready || !left.is_zero() {
            let most = if ready { left } else { LOOK_AGAIN };
            state = wait(state, most.min(LOOK_AGAIN));
            continue;
        }
        let operation = state.streams.get_mut(&handle)?.queue.pop_front()?;
        return Some((state, operation));
    }
}

fn finish(context: usize, stream: usize, sequence: u64, fails: Option<CUresult>) -> Locked {
    let mut state = lock();
    if let Some(context) = state.contexts.get_mut(&context) {
        context.running -= 1;
        context.failed = context.failed.or(fails);
    }
    if fails.is_some() {
        let streams = state.streams.values_mut();
        streams.filter(|stream| stream.owned.context == context).for_each(|one| one.abandon());
    }
    if let Some(stream) = state.streams.get_mut(&stream) {
        stream.done = stream.done.max(sequence);
        let begun = Instant::now();
        if let Some(operation) = stream.queue.front_mut() {
            operation.first = Some(begun);
        }
    }
    changed();
    state
}
