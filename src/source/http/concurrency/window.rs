//! Measures what arrives from a server: the rate of one sending connection, and that of all.

use std::time::Duration;
use tokio::time::Instant;

/// A window ends after this time, when bodies were arriving for half as long at least.
pub(super) const WINDOW: Duration = Duration::from_millis(50);
/// The first window also ends only after so many bytes on each connection, as its rate is relied on.
const FIRST_BYTES: u64 = 128 << 10;
/// After this time without bodies a new window begins.
const IDLE: Duration = Duration::from_secs(1);

/// What arrived in a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Bytes a second of one connection while a body arrives on it.
    pub rate: f64,
    /// Bytes a second of all connections together.
    pub total: f64,
}

/// What arrived since the window began.
#[derive(Debug)]
pub(super) struct Window {
    began: Instant,
    bytes: u64,
    /// The time for which bodies were arriving, without their pauses, summed over the connections.
    busy_seconds: f64,
    counted: Instant,
    /// How many bodies are arriving.
    sending: usize,
}

impl Window {
    /// A window that begins now.
    pub fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, busy_seconds: 0.0, counted: now, sending: 0 }
    }

    /// Counts a body that begins to arrive.
    pub fn begin(&mut self, now: Instant) {
        if self.sending == 0 && now.duration_since(self.counted) >= IDLE {
            *self = Self::new(now);
        }
        self.counted = now;
        self.sending += 1;
    }

    /// Counts a body that does not arrive any more, after the time `busy`.
    pub fn end_body(&mut self, busy: Duration, now: Instant) {
        self.add(0, busy, now);
        self.sending -= 1;
    }

    /// Counts `bytes` that arrived on a connection in the time `busy`.
    pub fn add(&mut self, bytes: u64, busy: Duration, now: Instant) {
        self.bytes += bytes;
        self.busy_seconds += busy.as_secs_f64();
        self.counted = now;
    }

    /// Ends the window if it has lasted long enough, of bodies with this usual `pause`. Returns what it
    /// has measured.
    pub fn end(&mut self, pause: Duration, now: Instant, after_first: bool) -> Option<Measured> {
        // The first bytes of a body may come at once; that is no rate.
        let busy_min = self.sending.max(1) as f64 * WINDOW.as_secs_f64() / 2.0;
        let bytes_min = if after_first { 0 } else { FIRST_BYTES * self.sending as u64 };
        let seconds = now.duration_since(self.began).as_secs_f64();
        // Bodies that began together pause together. The rate of all is that of the whole time.
        let is_short = seconds < WINDOW.max(pause).as_secs_f64() || self.busy_seconds < busy_min;
        if is_short || self.bytes < bytes_min {
            return None;
        }
        let (bytes, busy_seconds) = (self.bytes as f64, self.busy_seconds);
        *self = Self { sending: self.sending, ..Self::new(now) };
        Some(Measured { rate: bytes / busy_seconds, total: bytes / seconds })
    }
}
