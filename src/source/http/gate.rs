//! How many ranges of a server may be under way at once.
//!
//! With a number given, that many. Without, it climbs: while every place is taken, each step of
//! [`WINDOW`] compares what came in it with what came before the last change. A tenth more was worth
//! the further connections, and half as many again are tried; less was not, and they are given up.
//! A server that asks for fewer requests (503 SlowDown, 429) halves the number, at most once a
//! [`PENANCE`], and it grows again by one a window.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Where the climb begins. On loopback and on a single server more do not help; an object store
/// gives 50 to 100 MB/s a connection.
const START: usize = 16;
/// Where the climb ends.
pub(crate) const CONNECTIONS_MAX: usize = 64;
const WINDOW: Duration = Duration::from_millis(250);
const PENANCE: Duration = Duration::from_secs(1);

/// Lets as many in as are useful.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    inside: usize,
    limit: usize,
    most: usize,
    /// Whether every place was taken in this window.
    full: bool,
    window_began: Instant,
    window_bytes: u64,
    climb: Climb,
    throttled: Option<Instant>,
}

/// Where the climb is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Climb {
    /// The limit was raised from `from`, where so many bytes a second came.
    Trying { from: usize, rate: f64 },
    /// More did not help, or nothing was tried yet.
    Resting { windows: u32 },
}

/// So many windows after a climb that did not help it is tried again: networks change.
const REST_WINDOWS: u32 = 20;

/// A place inside; gives it back when it is dropped.
pub(crate) struct Inside<'a>(&'a Gate);

impl Gate {
    /// A gate for exactly `connections`, or for as many as help.
    pub fn new(connections: Option<usize>) -> Self {
        let state = State {
            inside: 0,
            limit: connections.unwrap_or(START).max(1),
            most: connections.unwrap_or(CONNECTIONS_MAX).max(1),
            full: false,
            window_began: Instant::now(),
            window_bytes: 0,
            climb: Climb::Resting { windows: REST_WINDOWS },
            throttled: None,
        };
        Self { state: Mutex::new(state), freed: Notify::new() }
    }

    /// Waits for a place.
    pub async fn enter(&self) -> Inside<'_> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // From here on no place that is given back is missed.
            freed.as_mut().enable();
            if self.try_enter() {
                return Inside(self);
            }
            freed.await;
        }
    }

    fn try_enter(&self) -> bool {
        let mut state = self.lock();
        if state.inside < state.limit {
            state.inside += 1;
            return true;
        }
        state.full = true;
        false
    }

    /// Says that `bytes` have come.
    pub fn brought(&self, bytes: u64) {
        let mut state = self.lock();
        state.window_bytes += bytes;
        let took = state.window_began.elapsed();
        if took < WINDOW {
            return;
        }
        let before = state.limit;
        let rate = state.window_bytes as f64 / took.as_secs_f64();
        state.step(rate);
        let more = state.limit.saturating_sub(before);
        drop(state);
        (0..more).for_each(|_| self.freed.notify_one());
    }

    /// Says that the server asked for fewer requests.
    pub fn throttled(&self) {
        let mut state = self.lock();
        if state.throttled.is_none_or(|since| since.elapsed() >= PENANCE) {
            state.throttled = Some(Instant::now());
            state.limit = (state.limit / 2).max(1);
            tracing::info!(connections = state.limit, "the server asks for fewer requests");
        }
    }

    /// How many are let in at the moment.
    #[cfg(test)]
    pub fn limit(&self) -> usize {
        self.lock().limit
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends a window in which `rate` bytes a second came.
    fn step(&mut self, rate: f64) {
        let full = std::mem::take(&mut self.full);
        self.window_began = Instant::now();
        self.window_bytes = 0;
        if let Some(since) = self.throttled {
            if since.elapsed() >= PENANCE && self.limit < self.most {
                self.limit += 1;
            }
            return;
        }
        self.climb = match self.climb {
            Climb::Trying { from, rate: before } if rate < before * 1.1 => {
                self.limit = from;
                Climb::Resting { windows: 0 }
            }
            Climb::Resting { windows } if windows < REST_WINDOWS => {
                Climb::Resting { windows: windows + 1 }
            }
            _ if full && self.limit < self.most => {
                let from = self.limit;
                self.limit = (from + from.div_ceil(2)).min(self.most);
                tracing::debug!(connections = self.limit, "trying more connections");
                Climb::Trying { from, rate }
            }
            // Nobody waits for a place, or there are no more.
            _ => Climb::Resting { windows: REST_WINDOWS },
        };
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.inside -= 1;
        let free = state.inside < state.limit;
        drop(state);
        if free {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends a window in which every place was taken and `rate` came.
    fn window(gate: &Gate, rate: f64) -> usize {
        let mut state = gate.lock();
        state.full = true;
        state.step(rate);
        state.limit
    }

    #[tokio::test]
    async fn it_climbs_while_that_helps_and_comes_back_when_not() {
        let gate = Gate::new(None);
        assert_eq!([1e9, 1.4e9, 1.9e9].map(|rate| window(&gate, rate)), [24, 36, 54]);
        assert_eq!(window(&gate, 1.9e9), 36, "54 brought no more than 36");
        for _ in 0..REST_WINDOWS {
            assert_eq!(window(&gate, 1.9e9), 36);
        }
        assert_eq!(window(&gate, 1.9e9), 54, "tried again after a rest");
        assert_eq!(window(&gate, 3e9), CONNECTIONS_MAX);
        assert_eq!(window(&gate, 4e9), CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn a_given_number_stays() {
        let gate = Gate::new(Some(3));
        assert_eq!([1e9, 2e9, 4e9].map(|rate| window(&gate, rate)), [3, 3, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttling_server_gets_half_as_many_once_a_second() {
        let gate = Gate::new(None);
        gate.throttled();
        gate.throttled();
        assert_eq!(gate.limit(), 8);
        tokio::time::advance(PENANCE).await;
        gate.throttled();
        assert_eq!(gate.limit(), 4);
        assert_eq!(window(&gate, 1e9), 4, "still in penance");
        tokio::time::advance(PENANCE).await;
        assert_eq!([1e9, 1e9].map(|rate| window(&gate, rate)), [5, 6]);
    }

    #[tokio::test]
    async fn nobody_gets_in_beyond_the_limit_and_everybody_in_the_end() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        let gate = Arc::new(Gate::new(Some(2)));
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (gate, inside, most) = (gate.clone(), inside.clone(), most.clone());
                tokio::spawn(async move {
                    let _inside = gate.enter().await;
                    most.fetch_max(inside.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::Relaxed);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::Relaxed), 2);
    }
}
