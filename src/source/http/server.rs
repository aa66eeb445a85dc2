//! The state that is kept per server, for all requests to it.

use super::concurrency::ConcurrencyLimit;
use super::hedging::Hedging;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// The initial and maximum number of a server's retry tokens: enough for a hundred retries.
const TOKENS_MAX: i64 = 500;
/// The tokens that a retry costs.
const RETRY_TOKENS: i64 = 5;
/// The tokens that a success gives back.
const SUCCESS_TOKENS: i64 = 1;

/// The state that the client keeps for a server.
#[derive(Debug)]
pub(crate) struct ServerState {
    pub concurrency: Arc<ConcurrencyLimit>,
    pub hedging: Hedging,
    retry_tokens: AtomicI64,
    successes: AtomicU64,
    /// How many objects are being opened.
    opening: AtomicUsize,
    /// How far the server's clock is ahead of this machine's, in seconds.
    skew_seconds: AtomicI64,
}

/// An object that is being opened.
pub(crate) struct OpeningObject<'a>(&'a ServerState);

impl Drop for OpeningObject<'_> {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ServerState {
    /// The state of a server before the first request, with a limit of `connections` if given.
    pub fn new(connections: Option<usize>) -> Self {
        Self {
            concurrency: ConcurrencyLimit::new(connections),
            hedging: Hedging::default(),
            retry_tokens: AtomicI64::new(TOKENS_MAX),
            successes: AtomicU64::new(0),
            opening: AtomicUsize::new(0),
            skew_seconds: AtomicI64::new(0),
        }
    }

    /// Takes the tokens of one retry. Returns false when there are too few, because the server
    /// fails so often that retries would only add to its load.
    pub fn take_retry(&self) -> bool {
        let take = |tokens: i64| (tokens >= RETRY_TOKENS).then_some(tokens - RETRY_TOKENS);
        self.retry_tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Counts a success, which gives back some retry tokens.
    pub fn succeeded(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        self.concurrency.served();
        let put = |tokens: i64| (tokens < TOKENS_MAX).then_some(tokens + SUCCESS_TOKENS);
        let _ = self.retry_tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, put);
    }

    /// How many requests have succeeded so far.
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    /// Counts an object that is being opened, which takes a connection.
    pub fn open_object(&self) -> OpeningObject<'_> {
        self.opening.fetch_add(1, Ordering::Relaxed);
        OpeningObject(self)
    }

    /// How many objects are being opened.
    pub fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    /// The time by the server's clock.
    pub fn now(&self) -> SystemTime {
        let skew = self.skew_seconds.load(Ordering::Relaxed);
        let by = Duration::from_secs(skew.unsigned_abs());
        let now = SystemTime::now();
        let there = if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        there.unwrap_or(now)
    }

    /// Adopts `there`, the present time by the server's clock.
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
    fn retry_tokens_are_refilled_by_successes() {
        let server = ServerState::new(None);
        let granted = (0..1000).filter(|_| server.take_retry()).count();
        assert_eq!(granted, 100);
        (0..5).for_each(|_| server.succeeded());
        assert!(server.take_retry() && !server.take_retry());
        (0..10_000).for_each(|_| server.succeeded());
        assert_eq!((0..1000).filter(|_| server.take_retry()).count(), 100);
    }

    #[test]
    fn clocks_may_differ_either_way() {
        let server = ServerState::new(None);
        for offset in [-900_i64, 900] {
            let by = Duration::from_secs(offset.unsigned_abs());
            let now = SystemTime::now();
            server.set_clock(if offset < 0 { now - by } else { now + by });
            let seen = match server.now().duration_since(now) {
                Ok(ahead) => ahead.as_secs() as i64,
                Err(behind) => -(behind.duration().as_secs() as i64),
            };
            assert!((seen - offset).abs() <= 2, "{seen} {offset}");
        }
    }
}
