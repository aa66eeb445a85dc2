//! The simulation: chunks of every process of one node go from the source through the ring's slots
//! to their GPUs, event by event.
//!
//! ```text
//! a slot and a lane are free  --latency-->  ready  --source, engine, memory-->  fetched: the lane is free
//!                                                                                   |
//!                       the slot is free  <--  copied  <--GPU's link, memory, from the context on--+
//! ```
//!
//! A shared stage is a clock: when it will be done with all that it was given so far. A chunk that
//! asks at `now` moves it on to `max(clock, now) + its own time there`, and is through a step when
//! the slowest clock of the step is, and not before its own connection could have brought it. So no
//! stage gives more than its rate, all work at once, and who waits for whom comes out by itself.
//! Nodes are all alike: each has its part of the store.
//!
//! Of a long load only the beginning is simulated, twice as much of it the second time; the rest goes
//! on at the pace of what was added. A test compares that with whole loads.

use super::stages::{Demand, Way};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// From the processes' start until everything is where it belongs.
    pub seconds: f64,
    /// The most slots of one process in use at once.
    pub slots_most: usize,
    /// The mean of slots in use while the load ran.
    pub slots_mean: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Begins,
    Ready { chunk: usize },
    Fetched { chunk: usize },
    Copyable { chunk: usize },
    Copied,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    at: f64,
    /// Events of one moment happen in the order in which they were foreseen.
    number: usize,
    process: usize,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

/// When a stage will be done with what it was given.
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
    lanes_used: usize,
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
    between_sockets: Clock,
    events: BinaryHeap<Reverse<Event>>,
    foreseen: usize,
    slots_most: usize,
    /// Slots in use, summed up over time.
    slot_seconds: f64,
    end: f64,
}

/// Loads of no more chunks a process are simulated to their end.
const CHUNKS_WHOLE: usize = 2000;
/// How often the ring turns over, at least, before its pace is taken for steady.
const TURNS: usize = 4;

/// One node's load.
pub fn run(demand: &Demand) -> Outcome {
    let slots = demand.slots.unwrap_or(demand.lanes).max(demand.lanes);
    let some = (CHUNKS_WHOLE / 2).max(TURNS * slots).next_multiple_of(demand.far_every);
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

/// The same, all of it.
pub fn run_whole(demand: &Demand) -> Outcome {
    let mut node = Node {
        demand,
        processes: vec![Process::default(); demand.processes],
        disk: Clock::default(),
        store: Clock::default(),
        requests: Clock::default(),
        network: Clock::default(),
        memory: Clock::default(),
        between_sockets: Clock::default(),
        events: BinaryHeap::new(),
        foreseen: 0,
        slots_most: 0,
        slot_seconds: 0.0,
        end: 0.0,
    };
    for process in 0..demand.processes {
        node.foresee(demand.reads_from_seconds, process, What::Begins);
    }
    while let Some(Reverse(event)) = node.events.pop() {
        node.happen(event);
    }
    let all_slot_time = (node.end * demand.processes as f64).max(f64::MIN_POSITIVE);
    Outcome {
        seconds: node.end,
        slots_most: node.slots_most,
        slots_mean: node.slot_seconds / all_slot_time,
    }
}

impl Node<'_> {
    fn foresee(&mut self, at: f64, process: usize, what: What) {
        self.foreseen += 1;
        self.events.push(Reverse(Event { at, number: self.foreseen, process, what }));
    }

    fn happen(&mut self, event: Event) {
        let Event { at, process, what, .. } = event;
        self.end = self.end.max(at);
        match what {
            What::Begins => {}
            What::Ready { chunk } => {
                let fetched = self.fetch(at, process, chunk);
                self.foresee(fetched, process, What::Fetched { chunk });
            }
            What::Fetched { chunk } => {
                self.processes[process].lanes_used -= 1;
                match self.demand.copy {
                    // A clock is moved at its own time only, or all would wait for the GPU's context.
                    Some(copy) => {
                        let from = at.max(copy.from_seconds);
                        self.foresee(from, process, What::Copyable { chunk });
                    }
                    None => self.free_slot(process, at),
                }
            }
            What::Copyable { chunk } => {
                if let Some(copied) = self.copy(at, process, chunk) {
                    self.foresee(copied, process, What::Copied);
                }
            }
            What::Copied => self.free_slot(process, at),
        }
        self.ask(at, process);
    }

    fn free_slot(&mut self, process: usize, now: f64) {
        self.processes[process].slots_used -= 1;
        self.slot_seconds += now;
    }

    /// Asks for chunks as long as there is a slot and a lane for them.
    fn ask(&mut self, now: f64, process: usize) {
        let demand = self.demand;
        loop {
            let state = &mut self.processes[process];
            let has_slot = demand.slots.is_none_or(|slots| state.slots_used < slots);
            if !has_slot || state.lanes_used >= demand.lanes || state.next_chunk >= demand.chunks {
                return;
            }
            let chunk = state.next_chunk;
            state.next_chunk += 1;
            state.slots_used += 1;
            state.lanes_used += 1;
            self.slots_most = self.slots_most.max(state.slots_used);
            self.slot_seconds -= now;
            let (way, is_far) = self.way(chunk);
            let asked = match is_far {
                true => self.requests.give(now, demand.store_seconds_per_request),
                false => now,
            };
            self.foresee(asked + way.latency_seconds, process, What::Ready { chunk });
        }
    }

    fn way(&self, chunk: usize) -> (Way, bool) {
        match chunk.is_multiple_of(self.demand.far_every) {
            true => (self.demand.far, true),
            false => (self.demand.near, false),
        }
    }

    fn bytes_of(&self, chunk: usize) -> f64 {
        let demand = self.demand;
        demand.chunk_bytes.min(demand.bytes - chunk as f64 * demand.chunk_bytes).max(0.0)
    }

    /// When a chunk whose first byte is there now has come.
    fn fetch(&mut self, now: f64, process: usize, chunk: usize) -> f64 {
        let (demand, bytes) = (self.demand, self.bytes_of(chunk));
        let (way, is_far) = self.way(chunk);
        let store = if is_far { demand.store_seconds_per_byte } else { 0.0 };
        let engine = bytes * demand.engine_seconds_per_byte + demand.engine_seconds_per_chunk;
        [
            now + bytes * way.flow_seconds_per_byte,
            self.disk.give(now, bytes * demand.disk_seconds_per_byte),
            self.store.give(now, bytes * store),
            self.network.give(now, bytes * demand.network_seconds_per_byte),
            self.processes[process].engines.give(now, engine),
            self.memory.give(now, bytes * demand.memory_in_seconds_per_byte),
        ]
        .into_iter()
        .fold(now, f64::max)
    }

    /// When a chunk is on its GPU and its slot is free; none where there are no GPUs.
    fn copy(&mut self, now: f64, process: usize, chunk: usize) -> Option<f64> {
        let (demand, bytes) = (self.demand, self.bytes_of(chunk));
        let copy = demand.copy?;
        let through = [
            self.processes[process].link.give(now, bytes * copy.seconds_per_byte),
            self.memory.give(now, bytes * demand.memory_out_seconds_per_byte),
            self.between_sockets.give(now, bytes * demand.cross_socket_seconds_per_byte),
        ];
        let through = through.into_iter().fold(now, f64::max);
        // The GPUs go on by themselves: the slot does not wait for that.
        let exchange = &mut self.processes[process].exchange;
        let exchanged = exchange.give(through, bytes * copy.exchange_seconds_per_byte);
        self.end = self.end.max(exchanged);
        Some(through + copy.slot_return_seconds)
    }
}
