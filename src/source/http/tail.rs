//! How long servers take to begin to answer, and when that is late.
//!
//! An answer is late when it takes three times as long as nine of ten of the recent ones did. It is
//! then asked for again on another connection, and the first of the two to begin is read. Such
//! seconds are bounded by a budget: one to twenty requests, so that a server which is slow
//! altogether is not asked for twice the work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many recent ones are looked at.
const RECENT: usize = 64;
/// With fewer, nothing is known of the tail.
const RECENT_MIN: usize = 16;
/// Nothing that comes sooner is late.
const LATE_MIN: Duration = Duration::from_millis(100);
/// A second request costs what so many first ones earn.
const COST: u32 = 20;
const BUDGET_MAX: u32 = 8 * COST;

/// The recent waits for first bytes of one server, and the budget of second requests.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recent: Vec<Duration>,
    next: usize,
    budget: u32,
}

impl Tail {
    /// Records how long a first byte took.
    pub fn record(&self, took: Duration) {
        let mut state = self.lock();
        state.budget = (state.budget + 1).min(BUDGET_MAX);
        let next = state.next;
        match state.recent.get_mut(next) {
            Some(oldest) => *oldest = took,
            None => state.recent.push(took),
        }
        state.next = (next + 1) % RECENT;
    }

    /// After how long an answer is late; `None` while too little is known.
    pub fn late_after(&self) -> Option<Duration> {
        let mut recent = self.lock().recent.clone();
        if recent.len() < RECENT_MIN {
            return None;
        }
        let rank = recent.len() * 9 / 10;
        let (_, ninth_of_ten, _) = recent.select_nth_unstable(rank);
        Some((*ninth_of_ten * 3).max(LATE_MIN))
    }

    /// Whether a second request may be made; if so, it is paid for.
    pub fn take_second(&self) -> bool {
        let mut state = self.lock();
        let affordable = state.budget >= COST;
        if affordable {
            state.budget -= COST;
        }
        affordable
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_three_times_the_recent_tail() {
        let tail = Tail::default();
        (0..RECENT_MIN - 1).for_each(|_| tail.record(Duration::from_millis(1)));
        assert_eq!(tail.late_after(), None);
        tail.record(Duration::from_millis(1));
        assert_eq!(tail.late_after(), Some(LATE_MIN));
        (0..RECENT as u64).for_each(|i| tail.record(Duration::from_millis(100 + i)));
        assert_eq!(tail.late_after(), Some(Duration::from_millis(3 * 157)));
    }

    #[test]
    fn second_requests_are_one_in_twenty() {
        let tail = Tail::default();
        let seconds = (0..10_000)
            .filter(|_| {
                tail.record(Duration::from_millis(1));
                tail.take_second()
            })
            .count();
        assert_eq!(seconds, 500);
        assert!(!tail.take_second());
    }
}
