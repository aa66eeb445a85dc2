//! The concurrency limit of a server: how many ranges may be requested at once, and how long they are.
//!
//! ```text
//! permits: requests that are on the way, or whose bodies arrive     at most Adaptive::limit
//! Pace:    when the next request may be made, once the server has refused some
//! Refusals: fewer connections, when the server refuses more
//! Window:  what arrives within 50 ms -> Measured -> Adaptive: the limit, and the length of ranges
//! Pauses:  for how long each body pauses, which is a part of the latency
//! ```

mod adaptive;
mod pace;
mod pauses;
mod refusals;
mod shortage;
mod window;

use crate::source::open_files::connections_allowed;
use crate::sync::Mutex;
use adaptive::{Adaptive, RANGE_BYTES};
use pace::Pace;
pub(crate) use pauses::BodyTime;
use refusals::Refusals;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use window::Window;

/// Limits the concurrent requests to one server.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    state: Mutex<LimitState>,
    released: Notify,
    /// Held while a request waits for its turn, so that requests which are repeated find few before
    /// them.
    queue: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct LimitState {
    permits: usize,
    /// Whether all permits were taken in this window.
    full: bool,
    /// Whether other connections were open when a request was last sent.
    has_others: bool,
    /// Whether the process had too many open files for a connection.
    short_of_files: bool,
    window: Window,
    pace: Pace,
    refusals: Refusals,
    adaptive: Adaptive,
}

impl LimitState {
    fn limit(&self) -> usize {
        let limit = self.adaptive.limit();
        self.refusals.most().map_or(limit, |most| most.min(limit))
    }
}

/// The permission to make one request. Dropping it releases the permit.
pub(crate) struct Permit {
    limit: Arc<ConcurrencyLimit>,
    /// Whether the permit is released while its answer waits for memory.
    paused: bool,
}

/// A body that is arriving.
pub(crate) struct Arriving {
    limit: Arc<ConcurrencyLimit>,
    time: Mutex<BodyTime>,
}

impl ConcurrencyLimit {
    /// A limit of exactly `connections`, or one that adapts.
    pub fn new(connections: Option<usize>) -> Arc<Self> {
        let now = Instant::now();
        let state = LimitState {
            permits: 0,
            full: false,
            has_others: false,
            short_of_files: false,
            window: Window::new(now),
            pace: Pace::new(now),
            refusals: Refusals::new(now),
            adaptive: Adaptive::new(connections, connections_allowed(), now),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            released: Notify::new(),
            queue: tokio::sync::Mutex::default(),
        })
    }

    /// Makes this the limit of a server whose connections are encrypted.
    pub fn encrypt(&self) {
        self.state.lock().adaptive.encrypt();
    }

    /// Waits until a request may be made, and for its permit. A request that is `repeated` goes before
    /// the others, as memory may be bound for what it reads.
    pub async fn acquire(self: &Arc<Self>, repeated: bool) -> Permit {
        self.turn(repeated).await;
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // Registered before the count is checked, so that no release is missed.
            released.as_mut().enable();
            if self.try_acquire() {
                return Permit { limit: Arc::clone(self), paused: false };
            }
            released.await;
        }
    }

    /// Waits until a request may be made.
    pub async fn turn(&self, repeated: bool) {
        let is_paced = self.state.lock().pace.rate().is_some();
        let _queue = if is_paced && !repeated { Some(self.queue.lock().await) } else { None };
        loop {
            let next = self.state.lock().pace.try_turn(Instant::now());
            match next {
                Some(next) => sleep_until(next).await,
                None => return,
            }
        }
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.permits -= 1;
        let wanted = state.adaptive.limit();
        let grown = state.refusals.grow(wanted, Instant::now());
        let is_free = state.permits < state.limit();
        drop(state);
        if is_free {
            (0..=grown).for_each(|_| self.released.notify_one());
        }
    }

    fn try_acquire(&self) -> bool {
        let mut state = self.state.lock();
        let is_free = state.permits < state.limit();
        if is_free {
            state.permits += 1;
        }
        state.full |= state.permits >= state.limit();
        is_free
    }

    /// Counts an answer whose first byte took `latency`.
    pub fn answered(&self, latency: Duration) {
        self.state.lock().adaptive.answered(latency);
    }

    /// Counts a body that begins to arrive.
    pub fn arriving(self: &Arc<Self>) -> Arriving {
        let now = Instant::now();
        self.state.lock().window.begin(now);
        Arriving { limit: Arc::clone(self), time: Mutex::new(BodyTime::new(now)) }
    }

    /// Counts the pauses of a body that has arrived. Returns the limit if it has changed.
    pub fn arrived(&self, body: &BodyTime) -> Option<usize> {
        let mut state = self.state.lock();
        let before = state.adaptive.limit();
        state.adaptive.paused(body.paused());
        let limit = state.adaptive.limit();
        drop(state);
        (before..limit).for_each(|_| self.released.notify_one());
        (limit != before).then_some(limit)
    }

    /// Makes fewer requests after the server asked for fewer requests, when it had `accepted` so many.
    /// Returns whether it may have room for fewer connections than were open: others were, in use or
    /// idle, and the limit permitted them.
    pub fn throttled(&self, accepted: u64) -> bool {
        let mut state = self.state.lock();
        let (now, limit) = (Instant::now(), state.limit());
        state.pace.refused(now);
        state.refusals.refused(accepted, limit, now);
        limit > 1 && (state.permits > 0 || state.has_others)
    }

    /// Lowers the limit after the server has closed the connection of a request without an answer, and
    /// the request has released its permit: to the number of the other requests. Returns whether
    /// there are any.
    pub fn connection_refused(&self) -> bool {
        let mut state = self.state.lock();
        let others = state.permits.min(state.limit());
        if others > 0 {
            state.refusals.lower(others, Instant::now());
        }
        others > 0
    }

    /// Counts a request that the server has served.
    pub fn served(&self) {
        self.state.lock().refusals.served();
    }

    /// Records that a request is sent while so many other connections are `idle`. Returns how many of
    /// those may stay open; `None` if any number.
    pub fn sends_beside(&self, idle: usize) -> Option<usize> {
        let mut state = self.state.lock();
        state.has_others = idle > 0 || state.permits > 1;
        state.refusals.most().map(|most| most.saturating_sub(state.permits))
    }

    /// The present limit.
    pub fn limit(&self) -> usize {
        self.state.lock().limit()
    }

    /// How many connections a load of so many `bytes` begins with.
    pub fn connections_of(&self, bytes: u64) -> usize {
        let ranges = usize::try_from(bytes.div_ceil(RANGE_BYTES)).unwrap_or(usize::MAX);
        self.limit().min(ranges)
    }

    /// How long the next range should be, of a load that receives into `memory_bytes` of memory and
    /// has `left_bytes` to request.
    pub fn range_bytes(&self, memory_bytes: u64, left_bytes: u64) -> u64 {
        let mut state = self.state.lock();
        let pace = state.pace.rate();
        state.adaptive.range_bytes(memory_bytes, left_bytes, pace)
    }
}

impl Arriving {
    /// Counts `bytes` that arrived. Returns the limit if it has changed.
    pub fn received(&self, bytes: u64) -> Option<usize> {
        let mut state = self.limit.state.lock();
        let LimitState { permits, full, window, adaptive, .. } = &mut *state;
        let now = Instant::now();
        window.add(bytes, self.time.lock().received(now), now);
        let measured = window.end(adaptive.usual_pause(), now, adaptive.is_measured())?;
        let before = adaptive.limit();
        let full = std::mem::take(full) || *permits >= before;
        adaptive.adapt(measured, full, now);
        let limit = adaptive.limit();
        drop(state);
        (before..limit).for_each(|_| self.limit.released.notify_one());
        (limit != before).then_some(limit)
    }

    /// Counts the pauses of the body, all of which has arrived. Returns the limit if it has changed.
    pub fn arrived(&self) -> Option<usize> {
        self.limit.arrived(&self.time.lock())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.limit.state.lock();
        let mut time = self.time.lock();
        let busy = time.received(now);
        // Longer pauses than the usual one count as time for which it was arriving.
        let unusual = time.paused().saturating_sub(state.adaptive.usual_pause());
        state.window.end_body(busy + unusual, now);
    }
}

impl Permit {
    /// Releases the permit while its answer waits for memory: another load may have that memory, and
    /// need a permit to be done with it.
    pub fn pause(&mut self) {
        if !std::mem::replace(&mut self.paused, true) {
            self.limit.release();
        }
    }

    /// Takes the permit again, at once and also beyond the limit: its connection is there already.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.limit.state.lock().permits += 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.paused {
            self.limit.release();
        }
    }
}

#[cfg(test)]
mod tests;
