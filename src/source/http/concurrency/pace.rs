//! The rate of requests that a server accepts, once it has refused some.
//!
//! A store that answers 503 SlowDown counts requests, and a burst of them is refused even if they
//! are few on average. So after a refusal requests are spaced evenly: at first with half of the
//! rate of the last [`MEASURED`], after later refusals with a share ([`LOWER`]) of the rate that
//! was refused, at most once a [`PERIOD`]. While requests wait for their turn the rate rises, to
//! find out whether the server accepts more: quickly ([`GROWTHS`]) until the second refusal, slowly
//! from then on.

use std::time::Duration;
use tokio::time::Instant;

/// The time over which the rate of unspaced requests is measured.
const MEASURED: Duration = Duration::from_secs(1);
/// Refusals within this time count as one.
const PERIOD: Duration = Duration::from_millis(250);
/// By which factors the rate grows in a second: before and after the second refusal.
const GROWTHS: (f64, f64) = (2.0, 1.1);
/// What is left of a rate that was refused: at the second refusal, and later. A rate that grows fast
/// is well above what the server accepts when the refusal comes.
const LOWER: (f64, f64) = (0.7, 0.85);
/// The lowest rate, in requests a second.
const RATE_MIN: f64 = 1.0;

/// Spaces the requests to one server.
#[derive(Debug)]
pub(super) struct Pace {
    /// Since when unspaced requests are counted, and how many there were.
    counted: (Instant, u32),
    lowered: Option<Lowered>,
    /// When the next request may be made.
    next: Instant,
}

/// The rate after a refusal.
#[derive(Debug)]
struct Lowered {
    /// In requests a second.
    rate: f64,
    /// Since when a request waits for its turn.
    waited_since: Option<Instant>,
    growth: f64,
    since: Instant,
}

impl Pace {
    /// A pace without a rate: all requests are made at once.
    pub fn new(now: Instant) -> Self {
        Self { counted: (now, 0), lowered: None, next: now }
    }

    /// Takes the turn of a request that is made now. Otherwise returns when the next turn is.
    pub fn try_turn(&mut self, now: Instant) -> Option<Instant> {
        let Some(lowered) = &mut self.lowered else {
            if now.duration_since(self.counted.0) >= MEASURED {
                self.counted = (now, 0);
            }
            self.counted.1 += 1;
            return None;
        };
        if self.next > now {
            lowered.waited_since.get_or_insert(now);
            return Some(self.next);
        }
        if let Some(since) = lowered.waited_since.take() {
            lowered.rate *= lowered.growth.powf(now.duration_since(since).as_secs_f64());
        }
        let interval = Duration::from_secs_f64(1.0 / lowered.rate);
        // A timer that is late does not lower the rate.
        self.next = self.next.max(now.checked_sub(interval).unwrap_or(now)) + interval;
        None
    }

    /// The rate in requests a second; `None` while requests are not spaced.
    pub fn rate(&self) -> Option<f64> {
        self.lowered.as_ref().map(|lowered| lowered.rate)
    }

    /// Lowers the rate after the server asked for fewer requests.
    pub fn refused(&mut self, now: Instant) {
        let (rate, growth) = match &self.lowered {
            Some(lowered) if now.duration_since(lowered.since) < PERIOD => return,
            Some(lowered) if lowered.growth == GROWTHS.0 => (lowered.rate * LOWER.0, GROWTHS.1),
            Some(lowered) => (lowered.rate * LOWER.1, GROWTHS.1),
            None => {
                let (since, requests) = self.counted;
                // The requests of a moment are not taken for a rate.
                let seconds = now.duration_since(since).max(PERIOD).as_secs_f64();
                (f64::from(requests) / seconds / 2.0, GROWTHS.0)
            }
        };
        let rate = rate.max(RATE_MIN);
        tracing::info!(requests_per_second = rate, "the server asked for fewer requests");
        self.lowered = Some(Lowered { rate, waited_since: None, growth, since: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many requests are made in a second from `now` on, by a client that waits for each turn.
    fn requests_in_a_second(pace: &mut Pace, now: Instant) -> usize {
        let mut at = now;
        let mut requests = 0;
        while at < now + SECOND {
            match pace.try_turn(at) {
                Some(next) => at = next,
                None => requests += 1,
            }
        }
        requests
    }

    /// A store that accepts 300 requests a second refused half of the bursts in which a load made its
    /// requests, and each refused range waited for up to half a second.
    #[test]
    fn after_a_refusal_requests_are_spaced_and_their_rate_is_found() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        assert!((0..100).all(|_| pace.try_turn(began).is_none()), "all at once");
        let now = began + Duration::from_millis(500);
        pace.refused(now);
        pace.refused(now);
        assert_eq!(pace.rate(), Some(100.0), "half of 200");
        let requests = requests_in_a_second(&mut pace, now);
        assert!((140..=150).contains(&requests), "{requests}: from 100 to 200 a second");
        let before = pace.rate().unwrap_or_default();
        pace.refused(now + SECOND);
        assert_eq!(pace.rate(), Some(before * LOWER.0));
        let requests = requests_in_a_second(&mut pace, now + SECOND);
        assert!((140..=155).contains(&requests), "{requests}: from 140 to 154 a second");
    }

    #[test]
    fn a_rate_that_nobody_waits_for_does_not_grow() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        (0..100).for_each(|_| _ = pace.try_turn(now));
        pace.refused(now);
        let before = pace.rate();
        for _ in 0..100 {
            now += Duration::from_millis(50);
            assert_eq!(pace.try_turn(now), None);
        }
        assert_eq!((before, pace.rate()), (Some(200.0), Some(200.0)));
    }

    #[test]
    fn a_server_that_refuses_everything_gets_a_request_a_second() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100 {
            pace.refused(now);
            now += PERIOD;
        }
        assert_eq!(pace.rate(), Some(RATE_MIN));
    }
}
