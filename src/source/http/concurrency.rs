//! The concurrency limit of a server: how many ranges may be requested at once, and how long they are.
//!
//! If the number of connections is configured, the limit is that number. Otherwise it follows what is
//! measured while bodies arrive:
//!
//! - **Start.** A network of [`START_BYTES_PER_SECOND`] has as many ranges of [`RANGE_BYTES`] on the
//!   way as it delivers in the time to the first byte, which is known from opening the object. So the
//!   limit starts with that many, within bounds: 4 for a store at 5 ms, 76 at 100 ms.
//! - **Growth.** In each [`WINDOW`] the rate *of one sending connection* is measured: the bytes that
//!   arrived, by the time for which bodies were arriving, summed over the connections. Unlike the rate
//!   of all, it does not depend on how many answers are awaited at the moment. While it is near the best
//!   one, the network has room: the limit is doubled. When it falls below [`ROOM`] of that, the
//!   connections take from each other, because the network or the CPU is full, and the limit stays. It also
//!   stays while the last increase has not raised the rate of all by a factor of [`GAIN`]. It
//!   never grows beyond [`SPARE`] times the number that would suffice for the best rate of all: that
//!   rate times the duration of a range, by the length of a range. After an increase no window counts until the new connections can have answered.
//! - **Shrinking.** When the rate of one connection stays below [`CROWDED`] of the best one, a quarter
//!   of the connections is given up, down to the number of the start: as many bytes arrive over fewer,
//!   which need less memory.
//! - **Throttling.** When the server asks for fewer requests (503 SlowDown, 429), the limit is halved,
//!   at most once a [`THROTTLE_PERIOD`], and ranges become twice as long. The limit then grows by one a
//!   window.
//!
//! **Ranges.** A connection that sends for twice as long as it waits for the first byte is used well:
//! a range is as long as one connection delivers in that time. All ranges that are being received take
//! at most half of the memory. With 100 ms, 10 MB/s a connection, 1.2 GB/s in all and 256 MiB, 120
//! connections send, a range is 1 MiB long, and 240 ranges are on the way.

use super::open_files::connections_allowed;
use crate::sync::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The initial limit for a server that has not answered anything yet.
const START: usize = 16;
/// The bounds of the limit with which a server starts that has answered.
const STARTS: (usize, usize) = (4, 128);
/// The rate for which the first ranges suffice.
const START_BYTES_PER_SECOND: f64 = 1.6e9;
/// The highest limit.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// The length of ranges before a rate was measured.
const RANGE_BYTES: u64 = 2 << 20;
/// The bounds of the length of ranges, which is a multiple of the lower one.
const RANGE_BOUNDS: (u64, u64) = (256 << 10, 8 << 20);
/// A range takes at least this time, so that fast connections have few requests.
const RANGE_SECONDS: f64 = 0.05;
/// A window ends after this time, when bodies were arriving for half as long at least.
const WINDOW: Duration = Duration::from_millis(50);
/// After this time without bodies a new window begins.
const IDLE: Duration = Duration::from_secs(1);
/// While one connection has at least this share of the best rate, the network has room for more.
const ROOM: f64 = 0.5;
/// With at least this share, there is room for twice as many.
const MUCH_ROOM: f64 = 0.9;
/// How many times higher the rate of all is after an increase that is followed by another one.
const GAIN: f64 = 1.15;
/// How many times the connections that suffice there may be.
const SPARE: f64 = 1.5;
/// Below this share of the best rate there are too many connections.
const CROWDED: f64 = 0.35;
/// The number of crowded windows in a row after which connections are given up.
const CROWDED_WINDOWS: u32 = 4;
/// What is left of the best rate after a window with a lower one, as networks change.
const FADING: f64 = 0.998;
const THROTTLE_PERIOD: Duration = Duration::from_secs(1);

/// Limits the concurrent requests to one server.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    state: Mutex<LimitState>,
    released: Notify,
}

#[derive(Debug)]
struct LimitState {
    permits: usize,
    limit: usize,
    limit_max: usize,
    /// Whether the caller gave the number of connections.
    given: bool,
    /// Whether all permits were taken in this window.
    full: bool,
    /// Whether bodies have arrived, so that the limit follows their rate.
    measured: bool,
    /// The mean time to the first byte.
    latency: Option<Duration>,
    window: Window,
    /// The mean number of bodies that arrive at a time, in the last window.
    sending: f64,
    /// The best rate of one connection, in bytes a second; 0 before the first window.
    best: f64,
    /// The best rate of all connections together.
    best_total: f64,
    /// The best rate of all since the last increase, and that before it.
    totals: [f64; 2],
    /// The length of the last range.
    range_bytes: u64,
    crowded_windows: u32,
    /// Windows count from here on.
    counts_from: Instant,
    throttled: Option<Instant>,
    short_of_files: bool,
    /// How many times longer ranges are because the server asked for fewer requests.
    longer: u64,
}

/// What arrived since the window began.
#[derive(Debug)]
struct Window {
    began: Instant,
    bytes: u64,
    /// The time for which bodies were arriving, summed over the connections, up to `counted`.
    busy_seconds: f64,
    counted: Instant,
    /// How many bodies are arriving.
    sending: usize,
}

/// The permission to make one request. Dropping it releases the permit.
pub(crate) struct Permit {
    limit: Arc<ConcurrencyLimit>,
    /// Whether the permit is released while its answer waits for memory.
    paused: bool,
}

/// A body that is arriving.
pub(crate) struct Arriving(Arc<ConcurrencyLimit>);

impl ConcurrencyLimit {
    /// A limit of exactly `connections`, or one that adapts.
    pub fn new(connections: Option<usize>) -> Arc<Self> {
        let now = Instant::now();
        let window = Window { began: now, bytes: 0, busy_seconds: 0.0, counted: now, sending: 0 };
        let allowed = connections_allowed();
        let state = LimitState {
            permits: 0,
            limit: connections.unwrap_or(START).min(allowed).max(1),
            limit_max: connections.unwrap_or(CONNECTIONS_MAX).min(allowed).max(1),
            given: connections.is_some(),
            full: false,
            measured: false,
            latency: None,
            window,
            sending: 0.0,
            best: 0.0,
            best_total: 0.0,
            totals: [0.0; 2],
            range_bytes: RANGE_BYTES,
            crowded_windows: 0,
            counts_from: now,
            throttled: None,
            short_of_files: false,
            longer: 1,
        };
        Arc::new(Self { state: Mutex::new(state), released: Notify::new() })
    }

    /// Waits for a permit.
    pub async fn acquire(self: &Arc<Self>) -> Permit {
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

    fn release(&self) {
        let mut state = self.state.lock();
        state.permits -= 1;
        let is_free = state.permits < state.limit;
        drop(state);
        if is_free {
            self.released.notify_one();
        }
    }

    fn try_acquire(&self) -> bool {
        let mut state = self.state.lock();
        let is_free = state.permits < state.limit;
        if is_free {
            state.permits += 1;
        }
        state.full |= state.permits >= state.limit;
        is_free
    }

    /// Counts an answer whose first byte took `latency`.
    pub fn answered(&self, latency: Duration) {
        let mut state = self.state.lock();
        let mean = state.latency.map_or(latency, |mean| mean * 7 / 8 + latency / 8);
        state.latency = Some(mean);
        if !state.measured && !state.given {
            state.limit = start(mean);
        }
    }

    /// Counts a body that begins to arrive.
    pub fn arriving(self: &Arc<Self>) -> Arriving {
        let mut state = self.state.lock();
        state.measured = true;
        let now = Instant::now();
        if state.window.sending == 0 && now.duration_since(state.window.counted) >= IDLE {
            state.window.restart(now);
        }
        state.window.count(now);
        state.window.sending += 1;
        drop(state);
        Arriving(Arc::clone(self))
    }

    /// Lowers the limit after the server asked for fewer requests.
    pub fn throttled(&self) {
        let mut state = self.state.lock();
        if state.throttled.is_none_or(|since| since.elapsed() >= THROTTLE_PERIOD) {
            state.throttled = Some(Instant::now());
            state.limit = (state.limit / 2).max(1);
            state.longer = (state.longer * 2).min(RANGE_BOUNDS.1 / RANGE_BOUNDS.0);
            tracing::info!(connections = state.limit, "the server asked for fewer requests");
        }
    }

    /// The present limit.
    pub fn limit(&self) -> usize {
        self.state.lock().limit
    }

    /// How long the next range should be, of a load that receives into `memory_bytes` of memory and
    /// has `left_bytes` to request.
    ///
    /// The last ranges are shorter, so that no single connection decides when the load ends.
    pub fn range_bytes(&self, memory_bytes: u64, left_bytes: u64) -> u64 {
        let mut state = self.state.lock();
        let bounded = |bytes: u64| {
            bytes.clamp(RANGE_BOUNDS.0, RANGE_BOUNDS.1).next_multiple_of(RANGE_BOUNDS.0)
        };
        state.range_bytes = bounded(state.best_range_bytes(memory_bytes) * state.longer);
        state.range_bytes.min(bounded(left_bytes / state.limit as u64))
    }
}

/// The limit with which a server starts whose first byte takes `latency`.
fn start(latency: Duration) -> usize {
    let bytes = START_BYTES_PER_SECOND * latency.as_secs_f64();
    (bytes / RANGE_BYTES as f64).ceil().clamp(STARTS.0 as f64, STARTS.1 as f64) as usize
}

impl Arriving {
    /// Counts `bytes` that arrived. Returns the limit if it has changed.
    pub fn received(&self, bytes: u64) -> Option<usize> {
        let mut state = self.0.state.lock();
        state.window.bytes += bytes;
        let now = Instant::now();
        state.window.count(now);
        // The first bytes of a body may come at once; that is no rate.
        let busy_min = state.window.sending.max(1) as f64 * WINDOW.as_secs_f64() / 2.0;
        let is_short = now.duration_since(state.window.began) < WINDOW;
        if is_short || state.window.busy_seconds < busy_min {
            return None;
        }
        let before = state.limit;
        state.end_window(now);
        let limit = state.limit;
        drop(state);
        (before..limit).for_each(|_| self.0.released.notify_one());
        (limit != before).then_some(limit)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.window.count(Instant::now());
        state.window.sending -= 1;
    }
}

impl Window {
    /// Adds the time up to now.
    fn count(&mut self, now: Instant) {
        let seconds = now.duration_since(self.counted).as_secs_f64();
        self.busy_seconds += seconds * self.sending as f64;
        self.counted = now;
    }

    /// Begins anew; bodies that are arriving go on.
    fn restart(&mut self, now: Instant) {
        *self = Self { began: now, bytes: 0, busy_seconds: 0.0, counted: now, ..*self };
    }
}

impl LimitState {
    /// Ends a window.
    fn end_window(&mut self, now: Instant) {
        self.window.count(now);
        let seconds = now.duration_since(self.window.began).as_secs_f64();
        let (bytes, busy_seconds) = (self.window.bytes as f64, self.window.busy_seconds);
        self.window.restart(now);
        if busy_seconds <= 0.0 {
            return;
        }
        self.sending = busy_seconds / seconds;
        let full = std::mem::take(&mut self.full) || self.permits >= self.limit;
        self.adapt([bytes / busy_seconds, bytes / seconds], full, now);
    }

    /// Adapts the limit to the rate of one connection and that of all. `full` says that all permits
    /// were taken.
    fn adapt(&mut self, [rate, total]: [f64; 2], full: bool, now: Instant) {
        self.best_total = total.max(self.best_total * FADING);
        self.best = match self.best {
            best if rate <= best => best * FADING,
            // A window may be an exception.
            best if best > 0.0 => best + (rate - best).min(best) / 4.0,
            _ => rate,
        };
        if let Some(since) = self.throttled {
            if now.duration_since(since) >= THROTTLE_PERIOD && self.limit < self.limit_max {
                self.limit += 1;
            }
            return;
        }
        if self.given || now < self.counts_from {
            return;
        }
        let share = rate / self.best;
        self.crowded_windows = if share < CROWDED { self.crowded_windows + 1 } else { 0 };
        let before = self.limit;
        let [since, before_that] = self.totals;
        self.totals = [since.max(total), before_that * FADING];
        let gained = self.totals[0] >= before_that * GAIN;
        if share >= ROOM && full && gained {
            let more = if share >= MUCH_ROOM { before } else { before.div_ceil(2) };
            let most = (SPARE * self.sufficient()) as usize;
            self.limit = (before + more).min(most).min(self.limit_max).max(before);
        } else if self.crowded_windows >= CROWDED_WINDOWS {
            self.crowded_windows = 0;
            let least = self.latency.map_or(START, start);
            self.limit = (before - before / 4).max(least.min(before));
        }
        if self.limit != before {
            tracing::debug!(connections = self.limit, before, rate);
            let latency = self.latency.unwrap_or_default();
            self.counts_from = now + latency + latency / 4;
            self.totals = [0.0, self.totals[0]];
        }
    }

    /// The number of connections that suffice for the best rate of all.
    fn sufficient(&self) -> f64 {
        let bytes = self.range_bytes as f64;
        let seconds = self.latency.unwrap_or_default().as_secs_f64() + bytes / self.best;
        self.best_total * seconds / bytes
    }

    fn best_range_bytes(&self, memory_bytes: u64) -> u64 {
        if self.best <= 0.0 {
            return RANGE_BYTES;
        }
        let latency = self.latency.unwrap_or_default().as_secs_f64();
        let wanted = self.best * (2.0 * latency).max(RANGE_SECONDS);
        let fitting = memory_bytes as f64 / 2.0 / self.sending.max(1.0);
        wanted.min(fitting) as u64
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

mod shortage;
#[cfg(test)]
mod tests;
