//! Streams: queues of operations. A worker thread for each stream runs its operations in order.
//!
//! An operation passes three states. It is *submitted* by a call, *done* when its worker has run
//! it, and *known* when the host has queried its completion (through an event or by waiting). Until
//! it is known, a trace records the memory that it uses, which may be neither freed nor
//! unregistered, and the checksum of its source, which must not change. Incorrect use is therefore
//! detected even if the worker happened to be fast.

use crate::call::{Call, LOOK_AGAIN};
use crate::delays::{Delay, StreamDelays};
use crate::random::Random;
use crate::result::CUresult;
use crate::state::{Kind, Locked, Owned, State, changed, wait};
use crate::trace::Trace;
use crate::work::Work;
use crate::worker;
use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) owned: Owned,
    /// Whether its handle is invalid; its remaining work still runs.
    pub(crate) destroyed: bool,
    /// Whether it keeps the order with the default stream.
    blocking: bool,
    /// Its name in messages.
    number: u64,
    submitted: u64,
    pub(crate) done: u64,
    /// The last operation that somebody waits for.
    wanted: u64,
    pub(crate) queue: VecDeque<Operation>,
    traces: VecDeque<Trace>,
    delays: StreamDelays,
    worker: Option<JoinHandle<()>>,
    /// Whether no more operations will be submitted.
    pub(crate) closing: bool,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) function: &'static str,
    pub(crate) sequence: u64,
    pub(crate) work: Work,
    pub(crate) fails: Option<CUresult>,
    /// The random numbers of its execution.
    pub(crate) random: Random,
    delay: Delay,
    submitted: Instant,
    /// The time at which the operation before it was done.
    pub(crate) first: Option<Instant>,
}

impl Operation {
    /// The rest of its delay.
    pub(crate) fn left(&self, wanted: u64) -> std::time::Duration {
        let first = self.first.unwrap_or(self.submitted);
        self.delay.left(self.submitted, first, self.sequence <= wanted)
    }
}

impl Stream {
    /// Creates a stream of the current context, with its worker.
    pub(crate) fn create(call: &mut Call, blocking: bool) -> usize {
        let seed = call.state.orders().seed;
        call.state.streams_created += 1;
        let number = call.state.streams_created;
        let handle = Kind::Stream.new_handle();
        let stream = Stream {
            owned: Owned::by(call.context),
            destroyed: false,
            blocking,
            number,
            submitted: 0,
            done: 0,
            wanted: 0,
            queue: VecDeque::new(),
            traces: VecDeque::new(),
            delays: StreamDelays::new(seed, number),
            worker: Some(worker::start(call.context, handle)),
            closing: false,
        };
        call.state.streams.insert(handle, stream);
        handle
    }

    pub(crate) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// The trace of an operation that is not known to be done.
    pub(crate) fn trace(&mut self, sequence: u64) -> Option<&mut Trace> {
        self.traces.iter_mut().find(|trace| trace.sequence == sequence)
    }

    /// Drops all queued work after the context has failed.
    pub(crate) fn abandon(&mut self) {
        self.queue.clear();
        self.traces.clear();
        self.done = self.submitted;
    }

    fn push(&mut self, mut trace: Trace, work: Work, fails: Option<CUresult>) -> u64 {
        self.submitted += 1;
        trace.sequence = self.submitted;
        let delay = match work {
            Work::Wait { .. } => Delay::None,
            Work::Record { .. } => self.delays.of_event(),
            _ => self.delays.of_work(),
        };
        self.queue.push_back(Operation {
            function: trace.function,
            sequence: self.submitted,
            work,
            fails,
            random: self.delays.of_run(),
            delay,
            submitted: Instant::now(),
            first: None,
        });
        self.traces.push_back(trace);
        self.submitted
    }
}

/// The stream with this handle, or the default stream for 0; raises the alarm unless it belongs to
/// the current context.
pub(crate) fn named(call: &mut Call, handle: usize) -> usize {
    if handle == 0 {
        return default_stream(call);
    }
    match call.state.streams.get(&handle) {
        Some(stream) if !stream.destroyed => call.same_context("stream", stream.owned.context),
        _ => Kind::Stream.missing(call.function, handle),
    }
    handle
}

/// The default stream.
pub(crate) fn default_stream(call: &mut Call) -> usize {
    let known = call.state.contexts.get(&call.context).and_then(|context| context.default_stream);
    if let Some(stream) = known {
        return stream;
    }
    let stream = Stream::create(call, false);
    if let Some(created) = call.state.streams.get_mut(&stream) {
        created.destroyed = true; // it has no handle to destroy, so it cannot leak
    }
    if let Some(context) = call.state.contexts.get_mut(&call.context) {
        context.default_stream = Some(stream);
    }
    stream
}

/// Queues work on a stream and returns its sequence number.
pub(crate) fn submit(call: &mut Call, stream: usize, mut trace: Trace, work: Work) -> u64 {
    trace.function = call.function;
    let orders = call.state.orders();
    let count = call.state.submissions.entry(call.function).or_default();
    *count += 1;
    let fails = orders.failure(call.function, *count, true);
    for (other, sequence) in ordered_before(call, stream) {
        let trace = Trace { function: call.function, ..Trace::after(other, sequence) };
        if let Some(stream) = call.state.streams.get_mut(&stream) {
            stream.push(trace, Work::Wait { stream: other, sequence }, None);
        }
    }
    let submitted =
        call.state.streams.get_mut(&stream).map(|stream| stream.push(trace, work, fails));
    changed();
    submitted.unwrap_or(0)
}

/// The work that implicitly precedes any new work of `stream`, because the default stream and the
/// blocking streams keep one order.
fn ordered_before(call: &Call, stream: usize) -> Vec<(usize, u64)> {
    let context = call.state.contexts.get(&call.context);
    let Some(default) = context.and_then(|context| context.default_stream) else {
        return Vec::new();
    };
    let is_blocking = call.state.streams.get(&stream).is_some_and(|stream| stream.blocking);
    let before = |handle: usize, other: &Stream| match stream == default {
        true => other.blocking && other.owned.context == call.context,
        false => is_blocking && handle == default,
    };
    let streams = call.state.streams.iter().filter(|(handle, other)| before(**handle, other));
    // This includes done work that is not known yet; it becomes known with the new work.
    let unknown = streams.filter(|(_, other)| !other.traces.is_empty());
    unknown.map(|(handle, other)| (*handle, other.submitted)).collect()
}

/// Submits work without waiting for it. The submission returns at once or late.
pub(crate) fn leave(mut call: Call, stream: usize, trace: Trace, work: Work) {
    let sequence = submit(&mut call, stream, trace, work);
    linger(call, stream, sequence);
}

/// Delays the return of some submissions, so that their work may be done by then.
pub(crate) fn linger(mut call: Call, stream: usize, sequence: u64) {
    let drawn = call.state.streams.get_mut(&stream).and_then(|stream| stream.delays.of_return());
    let Some(time) = drawn else { return };
    let begun = Instant::now();
    while !is_done(&call.state, stream, sequence) && begun.elapsed() < time {
        call.state = wait(call.state, time.saturating_sub(begun.elapsed()));
    }
}

/// Records that somebody waits for the work up to `sequence` and for the work before it.
pub(crate) fn want(state: &mut State, stream: usize, sequence: u64) {
    let mut wanted = vec![(stream, sequence)];
    while let Some((stream, sequence)) = wanted.pop() {
        let Some(stream) = state.streams.get_mut(&stream) else { continue };
        stream.wanted = stream.wanted.max(sequence);
        let queue = stream.queue.iter().filter(|operation| operation.sequence <= sequence);
        wanted.extend(queue.filter_map(|operation| operation.work.after()));
    }
}

/// Whether the stream has done its work up to `sequence`.
pub(crate) fn is_done(state: &State, stream: usize, sequence: u64) -> bool {
    state.streams.get(&stream).is_none_or(|stream| stream.done >= sequence)
}

/// Makes the work up to `sequence`, and the work before it, known to the host.
pub(crate) fn reveal(state: &mut State, stream: usize, sequence: u64) {
    let mut known = vec![(stream, sequence)];
    while let Some((stream, sequence)) = known.pop() {
        let Some(stream) = state.streams.get_mut(&stream) else { continue };
        while stream.traces.front().is_some_and(|trace| trace.sequence <= sequence)
            && let Some(trace) = stream.traces.pop_front()
        {
            if let Some(source) = trace.source {
                source.check(trace.function, "before anybody asked whether its copy was done");
            }
            known.extend(trace.after);
        }
    }
}

/// Raises the alarm if work that is not known to be done uses the memory from `base` on.
pub(crate) fn check_unused(state: &State, function: &str, base: u64) {
    check_no_trace(state, function, "the memory", |trace| trace.uses.contains(&base));
}

/// Raises the alarm if work that is not known to be done uses a kernel of the module.
pub(crate) fn check_module_unused(state: &State, function: &str, module: usize) {
    check_no_trace(state, function, "the module", |trace| trace.module == Some(module));
}

fn check_no_trace(state: &State, function: &str, what: &str, uses: impl Fn(&Trace) -> bool) {
    for stream in state.streams.values() {
        if let Some(trace) = stream.traces.iter().find(|trace| uses(trace)) {
            alarm!(
                "{function}: {what} is still in use: stream {} was given {} ({} of {} done), and \
                 nobody has asked whether it is done",
                stream.number,
                trace.function,
                stream.done,
                stream.submitted,
            );
        }
    }
}

/// The context's streams with the last work submitted to each.
pub(crate) fn ends(state: &State, context: usize) -> Vec<(usize, u64)> {
    let streams = state.streams.iter().filter(|(_, stream)| stream.owned.context == context);
    streams.map(|(handle, stream)| (*handle, stream.submitted)).collect()
}

/// The last work submitted to a stream.
pub(crate) fn end(state: &State, stream: usize) -> u64 {
    state.streams.get(&stream).map_or(0, |stream| stream.submitted)
}

/// Waits for the default stream.
pub(crate) fn after_default_stream(call: Call) -> Result<Call, CUresult> {
    let context = call.state.contexts.get(&call.context);
    match context.and_then(|context| context.default_stream) {
        Some(stream) => {
            let sequence = end(&call.state, stream);
            call.wait_for(stream, sequence)
        }
        None => Ok(call),
    }
}

/// Waits for all work of a context, also of one that has failed.
pub(crate) fn let_all_finish(mut state: Locked, context: usize) -> Locked {
    for (stream, sequence) in ends(&state, context) {
        want(&mut state, stream, sequence);
        changed();
        while !is_done(&state, stream, sequence) {
            state = wait(state, LOOK_AGAIN);
        }
    }
    state
}

/// Tells the workers of a context's streams to end, and returns them.
pub(crate) fn close_all(state: &mut State, context: usize) -> Vec<JoinHandle<()>> {
    let streams = state.streams.values_mut().filter(|stream| stream.owned.context == context);
    let closed = streams.filter_map(|stream| {
        stream.closing = true;
        stream.worker.take()
    });
    closed.collect()
}
