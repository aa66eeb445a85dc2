//! How the limit and the length of ranges follow from what is measured while bodies arrive. If the
//! number of connections is configured, the limit is that number. Otherwise:
//!
//! - **Start.** A network of [`START_BYTES_PER_SECOND`] has as many ranges of [`RANGE_BYTES`] on the
//!   way as it delivers in the time to the first byte, which is known from opening the object. So the
//!   limit starts with that many, within bounds: 4 for a store at 5 ms, 76 at 100 ms. The first
//!   window tells the rate of one connection, and the limit becomes the number of connections that
//!   such a network needs at that rate, at most [`CORRECTION`] times the first one at 100 ms. Nearby
//!   stores are measured again so soon that less is lost, and their connections may be fast because
//!   there are few: at 5 ms the limit stays at first.
//! - **Growth.** What counts is the rate *of one sending connection*: the bytes that arrived, by
//!   the time for which bodies were arriving, summed over the connections. Unlike the rate of all,
//!   it does not depend on how many answers are awaited at the moment. While it is near the best
//!   one, the network has room: the limit is doubled. When it falls below [`ROOM`] of that, the
//!   connections take from each other, because the network or the CPU is full, and the limit stays.
//!   It also stays while the last increase has not raised the rate of all by a factor of [`GAIN`].
//!   It never grows beyond [`SPARE`] times the number that would suffice for the best rate of all:
//!   that rate times the duration of a range, by the length of a range. After an increase no window
//!   counts until the new connections can have answered.
//! - **Shrinking.** When the rate of one connection stays below [`CROWDED`] of the best one, a quarter
//!   of the connections is given up, down to the number of the start: as many bytes arrive over fewer,
//!   which need less memory.
//! - **Outliers.** A client that did not get the processor for a moment finds the bytes of several
//!   windows in its sockets. So rates are medians of the windows since the last change, and at least
//!   two windows precede an increase.
//! - **Pauses.** A server may take its time not only before the first byte. What most bodies pause for
//!   is a part of the latency (see [`Pauses`]), and does not lower the rate of a connection. When
//!   such a pause is noticed, everything is measured anew.
//! - **Throttling.** When the server asks for fewer requests (503 SlowDown, 429), they are spaced (see
//!   [`Pace`](super::pace::Pace)). The limit does not grow then, as not all of its permits are taken.
//!
//! **Ranges.** A connection that sends for twice as long as it waits for the first byte is used well:
//! a range is as long as one connection delivers in that time. All ranges that are being received take
//! at most half of the memory. How many these are follows from the rate of the network, which is at
//! least taken to be [`START_BYTES_PER_SECOND`], and not from how many arrive at present: these are
//! few where long ranges wait for memory. A range holds its memory while its body pauses, too. With 100 ms, 10 MB/s a connection and 256 MiB, 160
//! connections can send, a range is 0.75 MiB long, and 330 ranges are on the way. A nearby store needs
//! no long ranges: there all of them fit into the cache of the processor.
//!
//! Where requests are spaced, ranges are longer, so that the rate of all stays: as long as the network
//! delivers between two requests. There the memory limits the rate, too: `m` bytes hold `m / l`
//! ranges of length `l`, each at the rate `c` of a connection, while `p` requests a second deliver
//! `p * l`. Both are the same, and the rate is at its best, for `l = sqrt(m * c / p)`; with a pause `d`
//! in each body, for `l = c / 2 * (sqrt(d * d + 4 * m / (c * p)) - d)`.

use super::pauses::Pauses;
use super::window::Measured;
use crate::source::open_files::CONNECTIONS_MAX;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The initial limit for a server that has not answered anything yet.
pub(super) const START: usize = 16;
/// The bounds of the limit with which a server starts that has answered.
const STARTS: (usize, usize) = (4, 128);
/// The rate for which the first ranges suffice.
const START_BYTES_PER_SECOND: f64 = 1.6e9;
/// How many times higher the limit is at most once the rate of one connection is known, for a store
/// that answers after [`FAR`].
const CORRECTION: f64 = 3.0;
const FAR: Duration = Duration::from_millis(100);
/// The length of ranges before a rate was measured.
pub(super) const RANGE_BYTES: u64 = 2 << 20;
/// The bounds of the length of ranges, which is a multiple of the lower one.
const RANGE_BOUNDS: (u64, u64) = (256 << 10, 8 << 20);
/// A range takes at least this time, so that fast connections have few requests.
const RANGE_SECONDS: f64 = 0.05;
/// A store that has answered within this time is nearby, however long answers take once the client's
/// processor is busy.
const NEAR: Duration = Duration::from_millis(10);
/// The bytes of the ranges that are received at a time from a nearby store, whose connections need no
/// long ranges: memory that is being filled stays in the cache of the processor where it is little.
/// With 16 connections over loopback, ranges of 4 MiB cost 0.23 CPU-seconds per GB, of 2 MiB 0.22, of
/// 1 MiB 0.19 (medians of 5). Under TLS, where requests cost more, ranges of 1 MiB cost 0.29, of 8 MiB
/// 0.24.
const NEAR_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Shorter ranges would cost more for their requests than they save.
const NEAR_RANGE_BYTES_MIN: f64 = 1024.0 * 1024.0;
/// Rates are medians of at most this many windows.
const WINDOWS_MAX: usize = 5;
/// An increase follows on at least this many windows.
const WINDOWS_MIN: usize = 2;
/// While one connection has at least this share of the best rate, the network has room for more.
const ROOM: f64 = 0.5;
/// With at least this share, there is room for twice as many.
const MUCH_ROOM: f64 = 0.9;
/// How many times higher the rate of all is after an increase that is followed by another one.
const GAIN: f64 = 1.15;
/// How many times higher the limit is after an increase, by how much room there is.
const STEPS: (f64, f64) = (1.5, 2.0);
/// How many times the connections that suffice there may be.
const SPARE: f64 = 1.5;
/// Below this share of the best rate there are too many connections.
const CROWDED: f64 = 0.35;
/// The number of windows after which connections are given up.
const CROWDED_WINDOWS: usize = 4;
/// What is left of the best rate after a window with a lower one, as networks change.
const FADING: f64 = 0.998;
/// How much of the memory holds ranges that are being received, where requests are spaced.
const SPACED_MEMORY: f64 = 0.8;

/// A limit that follows what is measured, unless it was given.
#[derive(Debug)]
pub(super) struct Adaptive {
    limit: usize,
    limit_max: usize,
    /// Whether the caller gave the number of connections.
    given: bool,
    /// The mean time to the first byte.
    first_byte: Option<Duration>,
    /// The shortest time to the first byte.
    first_byte_min: Duration,
    pauses: Pauses,
    /// Whether the connections are encrypted.
    encrypted: bool,
    /// The rates of one connection and of all in the windows since the limit last changed, the latest
    /// at the end.
    windows: VecDeque<[f64; 2]>,
    /// The best rate of one connection, in bytes a second; 0 before the first window.
    best: f64,
    /// The best rate of all connections together.
    best_total: f64,
    /// The rate of all before the last increase.
    total_before: f64,
    /// The length of the last range.
    range_bytes: u64,
    /// Windows count from here on.
    counts_from: Instant,
}

/// The limit with which a server of this latency starts.
fn start(latency: Duration) -> usize {
    let bytes = START_BYTES_PER_SECOND * latency.as_secs_f64();
    (bytes / RANGE_BYTES as f64).ceil().clamp(STARTS.0 as f64, STARTS.1 as f64) as usize
}

impl Adaptive {
    /// A limit of exactly `connections`, or one that adapts; in both cases at most `allowed`.
    pub fn new(connections: Option<usize>, allowed: usize, now: Instant) -> Self {
        Self {
            limit: connections.unwrap_or(START).min(allowed).max(1),
            limit_max: connections.unwrap_or(CONNECTIONS_MAX).min(allowed).max(1),
            given: connections.is_some(),
            first_byte: None,
            first_byte_min: Duration::MAX,
            pauses: Pauses::default(),
            encrypted: false,
            windows: VecDeque::new(),
            best: 0.0,
            best_total: 0.0,
            total_before: 0.0,
            range_bytes: RANGE_BYTES,
            counts_from: now,
        }
    }

    /// Makes the limit one of encrypted connections.
    pub fn encrypt(&mut self) {
        self.encrypted = true;
    }

    /// The present limit.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Lowers the limit to `allowed` for good.
    pub fn allow(&mut self, allowed: usize) {
        self.limit_max = self.limit_max.min(allowed);
        self.limit = self.limit.min(allowed);
    }

    /// Whether a rate was measured, so that the limit follows it.
    pub fn is_measured(&self) -> bool {
        self.best > 0.0
    }

    /// The best rate of one connection, in bytes a second.
    #[cfg(test)]
    pub fn best(&self) -> f64 {
        self.best
    }

    /// Counts an answer whose first byte took so long.
    pub fn answered(&mut self, first_byte: Duration) {
        let mean = self.first_byte.map_or(first_byte, |mean| mean * 7 / 8 + first_byte / 8);
        self.first_byte = Some(mean);
        self.first_byte_min = self.first_byte_min.min(first_byte);
        if !self.is_measured() && !self.given {
            self.limit = start(self.latency()).min(self.limit_max);
        }
    }

    /// Counts a body that has paused for so long.
    pub fn paused(&mut self, pause: Duration) {
        let before = self.usual_pause();
        self.pauses.record(pause);
        if before.is_zero() && !self.usual_pause().is_zero() {
            tracing::debug!(pause = ?self.usual_pause(), "the server pauses in its bodies");
            (self.best, self.best_total, self.total_before) = (0.0, 0.0, 0.0);
            self.windows.clear();
            if !self.given {
                self.limit = start(self.latency()).max(self.limit).min(self.limit_max);
            }
        }
    }

    /// For how long a body usually pauses.
    pub fn usual_pause(&self) -> Duration {
        self.pauses.usual()
    }

    /// The time of an answer that does not depend on the length of its body.
    fn latency(&self) -> Duration {
        self.first_byte.unwrap_or_default() + self.usual_pause()
    }

    /// Adapts the limit to a window. `full` says that all permits were taken in it.
    pub fn adapt(&mut self, measured: Measured, full: bool, now: Instant) {
        if now < self.counts_from {
            return;
        }
        if self.windows.len() == WINDOWS_MAX {
            self.windows.pop_front();
        }
        self.windows.push_back([measured.rate, measured.total]);
        let is_first = !self.is_measured();
        if !is_first && self.windows.len() < WINDOWS_MIN {
            return;
        }
        let [rate, total] = [0, 1].map(|which| self.median(which));
        self.best = rate.max(self.best * FADING);
        self.best_total = total.max(self.best_total * FADING);
        self.total_before *= FADING;
        if self.given {
            return;
        }
        let share = rate / self.best;
        let before = self.limit;
        if share >= ROOM && full && total >= self.total_before * GAIN {
            let most = match is_first {
                true => self.sufficient(START_BYTES_PER_SECOND).min(self.corrected()),
                false => (SPARE * self.sufficient(self.best_total)).min(self.step(share)),
            };
            self.limit = (most as usize).min(self.limit_max).max(before);
        } else if share < CROWDED && self.windows.len() >= CROWDED_WINDOWS {
            let least = self.first_byte.map_or(START, |_| start(self.latency()));
            self.limit = (before - before / 4).max(least.min(before));
        }
        if self.limit != before {
            tracing::debug!(connections = self.limit, before, rate);
            let latency = self.latency();
            self.counts_from = now + latency + latency / 4;
            self.total_before = total;
            self.windows.clear();
        }
    }

    /// The highest limit after the first window.
    fn corrected(&self) -> f64 {
        let far = self.latency().as_secs_f64() / FAR.as_secs_f64();
        self.limit as f64 * (1.0 + (CORRECTION - 1.0) * far.min(1.0))
    }

    /// The limit after an increase, where one connection has this share of the best rate.
    fn step(&self, share: f64) -> f64 {
        let factor = if share >= MUCH_ROOM { STEPS.1 } else { STEPS.0 };
        (self.limit as f64 * factor).ceil()
    }

    /// The median rate of one connection (0) or of all (1), the lower one of an even number.
    fn median(&self, which: usize) -> f64 {
        let mut rates: Vec<_> = self.windows.iter().map(|rates| rates[which]).collect();
        rates.sort_by(f64::total_cmp);
        rates.get((rates.len().max(1) - 1) / 2).copied().unwrap_or_default()
    }

    /// The number of connections that suffice for a rate of all of `bytes_per_second`.
    fn sufficient(&self, bytes_per_second: f64) -> f64 {
        let bytes = self.range_bytes as f64;
        let seconds = self.latency().as_secs_f64() + bytes / self.best;
        bytes_per_second * seconds / bytes
    }

    /// How long the next range should be, of a load that receives into `memory_bytes` of memory and
    /// has `left_bytes` to request, with `pace` requests a second if they are spaced.
    ///
    /// The last ranges are shorter, so that no single connection decides when the load ends. Where
    /// requests are spaced they stay long, as more requests would take longer.
    pub fn range_bytes(&mut self, memory_bytes: u64, left_bytes: u64, pace: Option<f64>) -> u64 {
        let bounded = |bytes: u64| {
            bytes.clamp(RANGE_BOUNDS.0, RANGE_BOUNDS.1).next_multiple_of(RANGE_BOUNDS.0)
        };
        self.range_bytes = bounded(self.best_range_bytes(memory_bytes as f64, pace) as u64);
        match pace {
            None => self.range_bytes.min(bounded(left_bytes / self.limit as u64)),
            Some(_) => self.range_bytes,
        }
    }

    /// The greatest length of ranges of a nearby store.
    fn near_range_bytes(&self) -> f64 {
        let latency_min = self.first_byte_min.saturating_add(self.usual_pause());
        if latency_min > NEAR || self.encrypted {
            return f64::MAX;
        }
        let in_cache = (NEAR_BYTES / self.limit as f64).max(NEAR_RANGE_BYTES_MIN);
        in_cache.max(self.best * latency_min.as_secs_f64())
    }

    fn best_range_bytes(&self, memory_bytes: f64, pace: Option<f64>) -> f64 {
        if !self.is_measured() {
            return RANGE_BYTES as f64 * if pace.is_some() { 2.0 } else { 1.0 };
        }
        let (latency, best) = (self.latency().as_secs_f64(), self.best);
        let pause = self.usual_pause().as_secs_f64();
        let network = self.best_total.max(START_BYTES_PER_SECOND);
        let wanted = (best * (2.0 * latency).max(RANGE_SECONDS)).min(self.near_range_bytes());
        // Less is left for each of the ranges that are received where these pause.
        let receiving = best * (memory_bytes / 2.0 / network.max(best) - pause);
        let least = if pause > 0.0 { memory_bytes / self.limit_max as f64 } else { 0.0 };
        let spaced = |pace: f64| {
            let memory_bytes = SPACED_MEMORY * memory_bytes;
            let fitting =
                best / 2.0 * ((pause * pause + 4.0 * memory_bytes / best / pace).sqrt() - pause);
            (network / pace).min(fitting)
        };
        wanted.min(receiving.max(least)).max(pace.map_or(0.0, spaced))
    }
}
