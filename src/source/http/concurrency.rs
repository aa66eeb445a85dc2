//! The concurrency limit of a server: how many ranges may be requested at once.
//!
//! If the number of connections is configured, the limit is that number. Otherwise it starts at
//! [`START`] and grows while throughput improves. At the end of each [`WINDOW`] in which all
//! permits were taken, the throughput is compared with that before the last increase. If it is at
//! least a tenth higher, the increase is kept and the limit grows by half again; else the increase
//! is taken back. When the server asks for fewer requests (503 SlowDown, 429), the limit is halved,
//! at most once a [`THROTTLE_PERIOD`], and then grows by one a window.

use crate::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The initial limit. With one server on loopback, more connections do not help; an object store
/// delivers 50 to 100 MB/s per connection.
const START: usize = 16;
/// The highest limit.
pub(crate) const CONNECTIONS_MAX: usize = 64;
const WINDOW: Duration = Duration::from_millis(250);
const THROTTLE_PERIOD: Duration = Duration::from_secs(1);
/// An increase is tried again this many windows after one that did not help, as networks change.
const REST_WINDOWS: u32 = 20;

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
    /// Whether a request had to wait for a permit in this window.
    full: bool,
    window_began: Instant,
    window_bytes: u64,
    growth: Growth,
    throttled: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Growth {
    /// The limit was raised from `from`, at which `rate` bytes a second were received.
    Trying { from: usize, rate: f64 },
    /// No increase is being tried; the last one was taken back `windows` windows ago.
    Resting { windows: u32 },
}

/// The permission to make one request. Dropping it releases the permit.
pub(crate) struct Permit<'a>(&'a ConcurrencyLimit);

impl ConcurrencyLimit {
    /// A limit of exactly `connections`, or one that adapts.
    pub fn new(connections: Option<usize>) -> Self {
        let state = LimitState {
            permits: 0,
            limit: connections.unwrap_or(START).max(1),
            limit_max: connections.unwrap_or(CONNECTIONS_MAX).max(1),
            full: false,
            window_began: Instant::now(),
            window_bytes: 0,
            growth: Growth::Resting { windows: REST_WINDOWS },
            throttled: None,
        };
        Self { state: Mutex::new(state), released: Notify::new() }
    }

    /// Waits for a permit.
    pub async fn acquire(&self) -> Permit<'_> {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // Registered before the count is checked, so that no release is missed.
            released.as_mut().enable();
            if self.try_acquire() {
                return Permit(self);
            }
            released.await;
        }
    }

    fn try_acquire(&self) -> bool {
        let mut state = self.state.lock();
        let is_free = state.permits < state.limit;
        if is_free {
            state.permits += 1;
        } else {
            state.full = true;
        }
        is_free
    }

    /// Counts `bytes` that were received.
    pub fn received(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.window_bytes += bytes;
        let took = state.window_began.elapsed();
        if took < WINDOW {
            return;
        }
        let before = state.limit;
        let rate = state.window_bytes as f64 / took.as_secs_f64();
        state.end_window(rate);
        let more = state.limit.saturating_sub(before);
        drop(state);
        (0..more).for_each(|_| self.released.notify_one());
    }

    /// Lowers the limit after the server asked for fewer requests.
    pub fn throttled(&self) {
        let mut state = self.state.lock();
        if state.throttled.is_none_or(|since| since.elapsed() >= THROTTLE_PERIOD) {
            state.throttled = Some(Instant::now());
            state.limit = (state.limit / 2).max(1);
            tracing::info!(connections = state.limit, "the server asked for fewer requests");
        }
    }

    /// The present limit.
    #[cfg(test)]
    pub fn limit(&self) -> usize {
        self.state.lock().limit
    }
}

impl LimitState {
    /// Ends a window in which `rate` bytes a second were received.
    fn end_window(&mut self, rate: f64) {
        let full = std::mem::take(&mut self.full);
        self.window_began = Instant::now();
        self.window_bytes = 0;
        if let Some(since) = self.throttled {
            if since.elapsed() >= THROTTLE_PERIOD && self.limit < self.limit_max {
                self.limit += 1;
            }
            return;
        }
        self.growth = match self.growth {
            Growth::Trying { from, rate: before } if rate < before * 1.1 => {
                self.limit = from;
                Growth::Resting { windows: 0 }
            }
            Growth::Resting { windows } if windows < REST_WINDOWS => {
                Growth::Resting { windows: windows + 1 }
            }
            _ if full && self.limit < self.limit_max => {
                let from = self.limit;
                self.limit = (from + from.div_ceil(2)).min(self.limit_max);
                tracing::debug!(connections = self.limit, "trying more connections");
                Growth::Trying { from, rate }
            }
            // No request waited for a permit, or the limit is the highest.
            _ => Growth::Resting { windows: REST_WINDOWS },
        };
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.permits -= 1;
        let is_free = state.permits < state.limit;
        drop(state);
        if is_free {
            self.0.released.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends a window in which every permit was taken and `rate` bytes a second were received.
    fn window(limit: &ConcurrencyLimit, rate: f64) -> usize {
        let mut state = limit.state.lock();
        state.full = true;
        state.end_window(rate);
        state.limit
    }

    #[tokio::test]
    async fn the_limit_grows_while_throughput_improves_and_shrinks_back_when_not() {
        let limit = ConcurrencyLimit::new(None);
        assert_eq!([1e9, 1.4e9, 1.9e9].map(|rate| window(&limit, rate)), [24, 36, 54]);
        assert_eq!(window(&limit, 1.9e9), 36, "54 connections were no faster than 36");
        for _ in 0..REST_WINDOWS {
            assert_eq!(window(&limit, 1.9e9), 36);
        }
        assert_eq!(window(&limit, 1.9e9), 54, "tried again after a rest");
        assert_eq!(window(&limit, 3e9), CONNECTIONS_MAX);
        assert_eq!(window(&limit, 4e9), CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn a_given_limit_stays() {
        let limit = ConcurrencyLimit::new(Some(3));
        assert_eq!([1e9, 2e9, 4e9].map(|rate| window(&limit, rate)), [3, 3, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttling_server_gets_half_as_many_once_a_second() {
        let limit = ConcurrencyLimit::new(None);
        limit.throttled();
        limit.throttled();
        assert_eq!(limit.limit(), 8);
        tokio::time::advance(THROTTLE_PERIOD).await;
        limit.throttled();
        assert_eq!(limit.limit(), 4);
        assert_eq!(window(&limit, 1e9), 4, "within a second of the throttling");
        tokio::time::advance(THROTTLE_PERIOD).await;
        assert_eq!([1e9, 1e9].map(|rate| window(&limit, rate)), [5, 6]);
    }

    #[tokio::test]
    async fn no_permit_is_granted_beyond_the_limit_and_all_in_the_end() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        let limit = Arc::new(ConcurrencyLimit::new(Some(2)));
        let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (limit, active, most) = (limit.clone(), active.clone(), most.clone());
                tokio::spawn(async move {
                    let _permit = limit.acquire().await;
                    most.fetch_max(active.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    active.fetch_sub(1, Ordering::Relaxed);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::Relaxed), 2);
    }
}
