//! What is remembered of a server, for all requests to it.

use super::gate::Gate;
use super::tail::Tail;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// The tokens of a server that was never asked: a hundred retries.
const TOKENS_MAX: i64 = 500;
/// What a retry costs.
const RETRY_TOKENS: i64 = 5;
/// What a success gives back.
const SUCCESS_TOKENS: i64 = 1;

/// What is remembered of a server.
#[derive(Debug)]
pub(crate) struct Host {
    /// How many ranges may be under way.
    pub gate: Gate,
    /// How long it takes to begin to answer.
    pub tail: Tail,
    tokens: AtomicI64,
    /// How far its clock is ahead of ours, in seconds.
    skew_seconds: AtomicI64,
}

impl Host {
    /// A server that was never asked, of which `connections` are wanted at once, if any number is.
    pub fn new(connections: Option<usize>) -> Self {
        Self {
            gate: Gate::new(connections),
            tail: Tail::default(),
            tokens: AtomicI64::new(TOKENS_MAX),
            skew_seconds: AtomicI64::new(0),
        }
    }

    /// Takes a retry out of the bucket. False when it is empty: the server fails so often that
    /// asking again only adds to its trouble.
    pub fn take_retry(&self) -> bool {
        let take = |tokens: i64| (tokens >= RETRY_TOKENS).then_some(tokens - RETRY_TOKENS);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Puts back what a success gives.
    pub fn succeeded(&self) {
        let put = |tokens: i64| (tokens < TOKENS_MAX).then_some(tokens + SUCCESS_TOKENS);
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, put);
    }

    /// The time by its clock.
    pub fn now(&self) -> SystemTime {
        let skew = self.skew_seconds.load(Ordering::Relaxed);
        let by = Duration::from_secs(skew.unsigned_abs());
        let now = SystemTime::now();
        let there = if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        there.unwrap_or(now)
    }

    /// Takes over what its clock said just now.
    pub fn set_clock(&self, there: SystemTime) {
        let skew = match there.duration_since(SystemTime::now()) {
            Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap_or_default(),
            Err(behind) => -i64::try_from(behind.duration().as_secs()).unwrap_or_default(),
        };
        tracing::info!(seconds = skew, "the server's clock differs; signing by its time");
        self.skew_seconds.store(skew, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_fills_by_successes() {
        let host = Host::new(None);
        let granted = (0..1000).filter(|_| host.take_retry()).count();
        assert_eq!(granted, 100);
        (0..5).for_each(|_| host.succeeded());
        assert!(host.take_retry() && !host.take_retry());
        (0..10_000).for_each(|_| host.succeeded());
        assert_eq!((0..1000).filter(|_| host.take_retry()).count(), 100);
    }

    #[test]
    fn clocks_may_differ_either_way() {
        let host = Host::new(None);
        for offset in [-900_i64, 900] {
            let by = Duration::from_secs(offset.unsigned_abs());
            let now = SystemTime::now();
            host.set_clock(if offset < 0 { now - by } else { now + by });
            let seen = match host.now().duration_since(now) {
                Ok(ahead) => ahead.as_secs() as i64,
                Err(behind) => -(behind.duration().as_secs() as i64),
            };
            assert!((seen - offset).abs() <= 2, "{seen} {offset}");
        }
    }
}
