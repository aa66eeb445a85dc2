//! The pauses in bodies. A server may pause in every body: before its first byte, before its last one,
//! or in between. Such a pause does not depend on how long the body is. So what bodies usually pause
//! for is a part of the latency, and the rate of a connection is that of the rest of the time.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// When nothing arrives for a shorter time, the body has not paused: the reader of a body waits for
/// more bytes for up to 25 ms (see `low_water`), and for its turn.
const GAP_MIN: Duration = Duration::from_millis(60);
/// So many recent bodies say what is usual.
const RECENT: usize = 16;

/// The pauses of the recent bodies of a server.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    recent: VecDeque<Duration>,
    usual: Duration,
}

impl Pauses {
    /// Counts a body that has paused for this long.
    pub fn record(&mut self, pause: Duration) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(pause);
        let mut sorted = Vec::from_iter(self.recent.iter().copied());
        sorted.sort_unstable();
        self.usual = sorted[sorted.len() / 4];
    }

    /// For how long three quarters of the bodies pause at least.
    pub fn usual(&self) -> Duration {
        self.usual
    }
}

/// The time of one body that is arriving.
#[derive(Debug)]
pub(crate) struct BodyTime {
    last: Instant,
    paused: Duration,
}

impl BodyTime {
    /// Of a body that begins to arrive.
    pub fn new(now: Instant) -> Self {
        Self { last: now, paused: Duration::ZERO }
    }

    /// Counts what arrived now. Returns for how long the body was arriving since the last time.
    pub fn received(&mut self, now: Instant) -> Duration {
        let gap = now.duration_since(self.last);
        self.last = now;
        if gap < GAP_MIN {
            return gap;
        }
        self.paused += gap;
        Duration::ZERO
    }

    /// For how long the body has paused.
    pub fn paused(&self) -> Duration {
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_three_quarters_of_the_bodies_pause_for_is_usual() {
        let mut pauses = Pauses::default();
        pauses.record(100 * MS);
        assert_eq!(pauses.usual(), 100 * MS, "the first one is believed");
        pauses.record(Duration::ZERO);
        assert_eq!(pauses.usual(), Duration::ZERO);
        (0..12).for_each(|_| pauses.record(1500 * MS));
        assert_eq!(pauses.usual(), 1500 * MS);
        (0..11).for_each(|_| pauses.record(Duration::ZERO));
        assert_eq!(pauses.usual(), Duration::ZERO, "no more");
    }

    #[test]
    fn a_body_that_arrives_steadily_does_not_pause() {
        let began = Instant::now();
        let mut body = BodyTime::new(began);
        for n in 1..=10 {
            assert_eq!(body.received(began + 20 * MS * n), 20 * MS);
        }
        assert_eq!(body.received(began + 300 * MS), Duration::ZERO, "100 ms without a byte");
        assert_eq!(body.received(began + 310 * MS), 10 * MS);
        assert_eq!(body.paused(), 100 * MS);
    }
}
