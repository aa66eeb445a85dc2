//! Reads mapped files ahead of the program that uses them.
//!
//! A mapped page that is not in the page cache is read when it is touched, by the thread that touches
//! it, and the kernel reads ahead by a fixed length that a disk is not busy with. Here a few threads
//! fault pages in ahead of the program, in long blocks, each in the kernel meanwhile:
//!
//! ```text
//! tensors in the order of the file     up to WINDOW_BYTES after the last one that was requested
//! a tensor out of order                that tensor
//! a plan, or all                       every block of it
//! ```
//!
//! What is in the page cache is not queued, and blocks of it are skipped. The threads end when the
//! queue is empty, or when nobody has the mapping any more. Pages that were read ahead count as page
//! cache, which the kernel takes back when memory is short.
//!
//! A program that touches pages while threads read them slows the reading down, as it then reads by
//! page faults, too. So a tensor is handed out when it was read ([`ReadAhead::wait`]), while what
//! follows it is being read. A tensor that somebody waits for is read first.

use crate::error::{Error, Result};
use crate::fork_guard::ForkGuard;
use crate::metrics;
use crate::source::{MappedFile, Via, WeakMappedFile};
use crate::sync::{Condvar, Mutex};
use crate::sys;
use std::collections::VecDeque;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// How far tensors are read ahead that are requested in the order of the file.
const WINDOW_BYTES: u64 = 256 << 20;
/// What one call of madvise(2) faults in.
const BLOCK_BYTES: u64 = 8 << 20;
/// Shorter ranges out of order are left to the page fault that touches them.
const SHORT_BYTES: u64 = 1 << 20;
/// Tensors of a file lie next to each other, but for gaps of at most this.
const GAP_BYTES: u64 = 4 << 10;
const THREADS_MAX: usize = 4;

/// The reading ahead of one file.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// A child has no threads that read, and reads when it touches pages.
    queue: ForkGuard<Arc<Queue>>,
    /// The bytes of the tensors in the file.
    data: Range<u64>,
}

#[derive(Debug)]
struct Queue {
    file: WeakMappedFile,
    state: Mutex<QueueState>,
    /// Notified when the reading of a block has ended.
    ended: Condvar,
}

#[derive(Debug)]
struct QueueState {
    /// What is still to be read.
    ranges: VecDeque<Range<u64>>,
    /// The blocks that threads are reading.
    in_flight: Vec<Range<u64>>,
    threads: usize,
    /// The end of the range that was expected last.
    last_end: u64,
    /// What was requested around it: nothing has to be requested again within it.
    requested: Range<u64>,
}

impl ReadAhead {
    /// Reads nothing yet. `data` is where the file has its tensors.
    pub fn new(file: &MappedFile, data: Range<u64>) -> Self {
        let state = QueueState {
            ranges: VecDeque::new(),
            in_flight: Vec::new(),
            threads: 0,
            last_end: data.start,
            requested: data.start..data.start,
        };
        let (file, state) = (file.downgrade(), Mutex::new(state));
        let queue = Arc::new(Queue { file, state, ended: Condvar::new() });
        Self { queue: ForkGuard::new(queue), data }
    }

    /// Reads `range` of the file, and what follows it if the program goes through the file in order.
    /// Returns whether the program should [wait](Self::wait) before it uses the range.
    pub fn expect(&self, range: Range<u64>) -> bool {
        let Some(queue) = self.queue.get() else { return false };
        let mut state = queue.state.lock();
        let is_next =
            (state.last_end..=state.last_end.saturating_add(GAP_BYTES)).contains(&range.start);
        state.last_end = range.end;
        if is_next {
            let ahead = state.requested.end.saturating_sub(range.end);
            if ahead < WINDOW_BYTES / 2 && state.requested.end < self.data.end {
                let end = range.end.saturating_add(WINDOW_BYTES).min(self.data.end);
                let start = state.requested.end.max(range.start);
                state.requested.end = end;
                queue.enqueue(&mut state, start..end);
            }
        } else if range.start < state.requested.start || range.end > state.requested.end {
            state.requested = range.clone();
            if range.end - range.start >= SHORT_BYTES {
                queue.enqueue(&mut state, range.clone());
            }
        }
        state.is_pending(&range) && {
            state.read_first(range);
            true
        }
    }

    /// Waits until no thread reads `range` of the file or is going to, at most for `timeout`. Returns
    /// whether that is so.
    pub fn wait(&self, range: &Range<u64>, timeout: Duration) -> bool {
        let Some(queue) = self.queue.get() else { return true };
        let state = queue.state.lock();
        let state = queue.ended.wait_while_for(state, |state| state.is_pending(range), timeout);
        !state.is_pending(range)
    }

    /// Reads `range` of the file.
    pub fn request(&self, range: Range<u64>) {
        let Some(queue) = self.queue.get() else { return };
        let mut state = queue.state.lock();
        match state.ranges.back_mut() {
            Some(last) if last.end <= range.start && range.start - last.end <= GAP_BYTES => {
                last.end = range.end;
            }
            _ => state.ranges.push_back(range),
        }
        queue.start_threads(&mut state);
    }

    /// Reads all tensors of the file.
    pub fn request_all(&self) {
        let Some(queue) = self.queue.get() else { return };
        let mut state = queue.state.lock();
        let start = if state.requested.start == self.data.start { state.requested.end } else { 0 };
        let start = start.max(self.data.start);
        state.requested = self.data.clone();
        queue.enqueue(&mut state, start..self.data.end);
    }

    /// [Waits](Self::wait) for everything that was requested.
    pub fn wait_for_all(&self, timeout: Duration) -> bool {
        self.wait(&self.data, timeout)
    }
}

impl QueueState {
    /// Whether a part of `range` is queued or being read.
    fn is_pending(&self, range: &Range<u64>) -> bool {
        let overlaps = |one: &Range<u64>| one.start < range.end && range.start < one.end;
        !range.is_empty() && self.ranges.iter().chain(&self.in_flight).any(overlaps)
    }

    /// Moves what is queued of `range` to the front of the queue.
    fn read_first(&mut self, range: Range<u64>) {
        let is_in_next_block = |first: &Range<u64>| {
            first.contains(&range.start) && range.start / BLOCK_BYTES == first.start / BLOCK_BYTES
        };
        if self.ranges.front().is_some_and(is_in_next_block) {
            return;
        }
        let (mut first, mut rest) = (VecDeque::new(), VecDeque::new());
        for one in self.ranges.drain(..) {
            let inner = one.start.max(range.start)..one.end.min(range.end);
            if inner.is_empty() {
                rest.push_back(one);
                continue;
            }
            let (before, after) = (one.start..inner.start, inner.end..one.end);
            first.push_back(inner);
            rest.extend([before, after].into_iter().filter(|part| !part.is_empty()));
        }
        first.append(&mut rest);
        self.ranges = first;
    }
}

impl Queue {
    /// Queues a range, unless the page cache has it.
    fn enqueue(self: &Arc<Self>, state: &mut QueueState, range: Range<u64>) {
        let first = range.start..range.end.min(range.start + BLOCK_BYTES);
        let is_cached = |file: &MappedFile| file.is_cached(first) && file.is_cached(range.clone());
        if !self.file.upgrade().is_some_and(|file| is_cached(&file)) {
            state.ranges.push_back(range);
            self.start_threads(state);
        }
    }

    /// Starts threads for what is queued. One that cannot be started is not missed: pages are read when
    /// they are touched.
    fn start_threads(self: &Arc<Self>, state: &mut QueueState) {
        let cores = available_parallelism().map_or(2, NonZero::get);
        let blocks: u64 =
            state.ranges.iter().map(|range| (range.end - range.start).div_ceil(BLOCK_BYTES)).sum();
        let wanted = cores.clamp(2, THREADS_MAX).min(blocks as usize);
        while state.threads < wanted {
            let queue = Arc::clone(self);
            if sys::spawn("ringload-ahead", move || queue.work()).is_err() {
                break;
            }
            state.threads += 1;
        }
        if state.threads == 0 {
            state.ranges.clear(); // so that nobody waits for them
        }
    }

    fn work(&self) {
        let mut state = self.state.lock();
        while let Some(block) = next_block(&mut state.ranges) {
            state.in_flight.push(block.clone());
            drop(state);
            // The reading ends when neither a tensor nor the checkpoint has the mapping any more.
            let read = self.file.upgrade().map(|file| read(&file, block.clone()));
            state = self.state.lock();
            if !matches!(read, Some(Ok(()))) {
                // What cannot be read is reported by the access to it.
                state.ranges.clear();
            }
            if let Some(at) = state.in_flight.iter().position(|other| *other == block) {
                state.in_flight.swap_remove(at);
            }
            self.ended.notify_all();
        }
        state.threads -= 1;
    }
}

/// Takes the first block of what is to be read. Blocks end at multiples of their length in the file.
fn next_block(ranges: &mut VecDeque<Range<u64>>) -> Option<Range<u64>> {
    loop {
        let first = ranges.front_mut()?;
        let start = first.start;
        let end = (start / BLOCK_BYTES + 1).saturating_mul(BLOCK_BYTES).min(first.end);
        first.start = end;
        if first.start >= first.end {
            ranges.pop_front();
        }
        if start < end {
            return Some(start..end);
        }
    }
}

fn read(file: &MappedFile, block: Range<u64>) -> Result<()> {
    if file.is_cached(block.clone()) {
        return Ok(());
    }
    let began = Instant::now();
    let range = block.start as usize..block.end as usize;
    file.mapping()
        .populate_read(range)
        .map_err(|e| Error::from_io("read a mapped file ahead", e))?;
    let bytes = block.end - block.start;
    metrics::read("file", Via::Mapped.as_str(), bytes, began.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests;
