//! The simulation, event by event: chunks of every process of one node go from the source through the
//! slots of the ring to the GPUs.
//!
//! ```text
//! slot and read task free  --latency-->  ready  --source, engine, memory-->  fetched: read task free
//!                                                                                   |
//!                           slot free  <--  copied  <--GPU's link, memory, once the context exists--+
//! ```
//!
//! A shared stage is a clock: the time when it has finished all work so far. A chunk that arrives at
//! `now` advances the clock to `max(clock, now) + its time there`. The chunk has passed a step when
//! the slowest clock of the step has, and when its own connection can have delivered it. No stage
//! therefore exceeds its rate, all stages work concurrently, and waits follow from the clocks. All
//! nodes are alike: each has its share of the store.
//!
//! Of a long load only the beginning is simulated, twice, the second time with twice the length. The
//! rest is extrapolated with the rate of the added part. A test compares this with whole loads.

use super::stages::{Demand, Route};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// From the start of the processes until all bytes are at their destination.
    pub seconds: f64,
    /// The maximum number of slots of one process in use.
    pub slots_most: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Begins,
    Ready { chunk: usize },
    Fetched { chunk: usize },
    Copyable { chunk: usize },
    Copied,
}

/// The bits of the time, which are ordered as times are because no time is negative; a number, so that
/// simultaneous events happen in the order in which they were scheduled; and the process.
type Event = (u64, usize, usize, What);

/// The time when a stage has finished all work so far.
#[derive(Debug, Clone, Copy, Default)]
struct Clock(f64);

impl Clock {
    fn give(&mut self, now: f64, seconds: f64) -> f64 {
        if seconds > 0.0 {
            self.0 = self.0.max(now) + seconds;
            self.0
        } else {
            now
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Process {
    next_chunk: usize,
    slots_used: usize,
    read_tasks_used: usize,
    engines: Clock,
    link: Clock,
    exchange: Clock,
}

struct Node<'a> {
    demand: &'a Demand,
    processes: Vec<Process>,
    disk: Clock,
    store: Clock,
    requests: Clock,
    network: Clock,
    memory: Clock,
    events: BinaryHeap<Reverse<Event>>,
    foreseen: usize,
    slots_most: usize,
    end: f64,
}

/// Loads with at most this many chunks per process are simulated completely.
const CHUNKS_WHOLE: usize = 2000;
/// How often the ring is reused, at least, before its rate counts as steady.
const TURNS: usize = 4;

/// One node's load.
pub fn run(demand: &Demand) -> Outcome {
    let some = (CHUNKS_WHOLE / 2).max(TURNS * demand.slots).next_multiple_of(demand.far_every);
    if demand.chunks <= 2 * some {
        return run_whole(demand);
    }
    let beginning = |chunks: usize| {
        let bytes = chunks as f64 * demand.chunk_bytes;
        run_whole(&Demand { bytes, chunks, ..demand.clone() })
    };
    let (once, twice) = (beginning(some), beginning(2 * some));
    let rest = demand.bytes / demand.chunk_bytes - (2 * some) as f64;
    let seconds = twice.seconds + (twice.seconds - once.seconds) * rest / some as f64;
    let least = demand.bounds().iter().fold(0.0_f64, |most, (_, seconds)| most.max(*seconds));
    Outcome { seconds: seconds.max(least), ..twice }
}

/// Simulates the complete load.
pub fn run_whole(demand: &Demand) -> Outcome {
    let mut node = Node {
        demand,
        processes: vec![Process::default(); demand.processes],
        disk: Clock::default(),
        store: Clock::default(),
        requests: Clock::default(),
        network: Clock::default(),
        memory: Clock::default(),
        events: BinaryHeap::new(),
        foreseen: 0,
        slots_most: 0,
        end: 0.0,
    };
    for process in 0..demand.processes {
        node.foresee(demand.reads_from_seconds, process, What::Begins);
    }
    while let Some(Reverse(event)) = node.events.pop() {
        node.happen(event);
    }
    Outcome { seconds: node.end, slots_most: node.slots_most }
}

impl Node<'_> {
    fn foresee(&mut self, at: f64, process: usize, what: What) {
        self.foreseen += 1;
        self.events.push(Reverse((at.to_bits(), self.foreseen, process, what)));
    }

    fn happen(&mut self, (at, _, process, what): Event) {
        let at = f64::from_bits(at);
        self.end = self.end.max(at);
        match what {
            What::Begins => {}
            What::Ready { chunk } => {
                let fetched = self.fetch(at, process, chunk);
                self.foresee(fetched, process, What::Fetched { chunk });
            }
            What::Fetched { chunk } => {
                self.processes[process].read_tasks_used -= 1;
                // A clock is moved at its own time only, or all would wait for the GPU's context.
                let from = at.max(self.demand.copies_from_seconds);
                self.foresee(from, process, What::Copyable { chunk });
            }
            What::Copyable { chunk } => {
                let copied = self.copy(at, process, chunk);
                self.foresee(copied, process, What::Copied);
            }
            What::Copied => self.processes[process].slots_used -= 1,
        }
        self.ask(at, process);
    }

    /// Starts chunks as long as a slot and a read task are free.
    fn ask(&mut self, now: f64, process: usize) {
        let demand = self.demand;
        loop {
            let state = &mut self.processes[process];
            if state.slots_used >= demand.slots
                || state.read_tasks_used >= demand.read_tasks
                || state.next_chunk >= demand.chunks
            {
                return;
            }
            let chunk = state.next_chunk;
            state.next_chunk += 1;
            state.slots_used += 1;
            state.read_tasks_used += 1;
            self.slots_most = self.slots_most.max(state.slots_used);
            let (route, is_far) = self.route(chunk);
            let asked = match is_far {
                true => self.requests.give(now, demand.store_seconds_per_request),
                false => now,
            };
            self.foresee(asked + route.latency_seconds, process, What::Ready { chunk });
        }
    }

    fn route(&self, chunk: usize) -> (Route, bool) {
        match chunk.is_multiple_of(self.demand.far_every) {
            true => (self.demand.far, true),
            false => (self.demand.near, false),
        }
    }

    fn bytes_of(&self, chunk: usize) -> f64 {
        let demand = self.demand;
        demand.chunk_bytes.min(demand.bytes - chunk as f64 * demand.chunk_bytes).max(0.0)
    }

    /// The time when a chunk whose first byte arrives now is complete.
    fn fetch(&mut self, now: f64, process: usize, chunk: usize) -> f64 {
        let (demand, bytes) = (self.demand, self.bytes_of(chunk));
        let (route, is_far) = self.route(chunk);
        let store = if is_far { demand.store_seconds_per_byte } else { 0.0 };
        let engine = bytes * demand.engine_seconds_per_byte + demand.engine_seconds_per_chunk;
        [
            now + bytes * route.flow_seconds_per_byte,
            self.disk.give(now, bytes * demand.disk_seconds_per_byte),
            self.store.give(now, bytes * store),
            self.network.give(now, bytes * demand.network_seconds_per_byte),
            self.processes[process].engines.give(now, engine),
            self.memory.give(now, bytes * demand.memory_in_seconds_per_byte),
        ]
        .into_iter()
        .fold(now, f64::max)
    }

    /// The time when a chunk is on its GPU and its slot is free.
    fn copy(&mut self, now: f64, process: usize, chunk: usize) -> f64 {
        let (demand, bytes) = (self.demand, self.bytes_of(chunk));
        let state = &mut self.processes[process];
        let copied = state
            .link
            .give(now, bytes * demand.copy_seconds_per_byte)
            .max(self.memory.give(now, bytes * demand.memory_out_seconds_per_byte));
        // The GPUs go on by themselves: the slot does not wait for that.
        let exchanged = state.exchange.give(copied, bytes * demand.exchange_seconds_per_byte);
        self.end = self.end.max(exchanged);
        copied + demand.slot_return_seconds
    }
}
