//! Hedged requests: when a response is late, the request is repeated on another connection.
//!
//! A response is late when it takes three times as long as the 90th percentile of the recent ones.
//! The request is then sent again, and the first of the two responses to begin is read. A budget
//! limits repeated requests to one in twenty, so that a server which is slow altogether does not get
//! twice the work.

use crate::sync::Mutex;
use std::time::Duration;

/// How many recent times are kept.
const RECENT: usize = 64;
/// With fewer recent times than this, no response counts as late.
const RECENT_MIN: usize = 16;
/// No response counts as late before this time.
const LATE_MIN: Duration = Duration::from_millis(100);
/// A repeated request costs as much of the budget as this many responses add to it.
const COST: u32 = 20;
const BUDGET_MAX: u32 = 8 * COST;

/// The recent times to first byte of one server, and the budget of repeated requests.
#[derive(Debug, Default)]
pub(crate) struct Hedging {
    state: Mutex<HedgingState>,
}

#[derive(Debug, Default)]
struct HedgingState {
    recent: Vec<Duration>,
    next: usize,
    budget: u32,
}

impl Hedging {
    /// Records the time to first byte of a response.
    pub fn record(&self, took: Duration) {
        let mut state = self.state.lock();
        state.budget = (state.budget + 1).min(BUDGET_MAX);
        let next = state.next;
        match state.recent.get_mut(next) {
            Some(oldest) => *oldest = took,
            None => state.recent.push(took),
        }
        state.next = (next + 1) % RECENT;
    }

    /// The time after which a response is late; `None` while too few times are known.
    pub fn late_after(&self) -> Option<Duration> {
        let mut recent = self.state.lock().recent.clone();
        if recent.len() < RECENT_MIN {
            return None;
        }
        let rank = recent.len() * 9 / 10;
        let (_, percentile_90, _) = recent.select_nth_unstable(rank);
        Some((*percentile_90 * 3).max(LATE_MIN))
    }

    /// Takes the cost of a repeated request from the budget. Returns false if it is too small.
    pub fn try_hedge(&self) -> bool {
        let mut state = self.state.lock();
        let affordable = state.budget >= COST;
        if affordable {
            state.budget -= COST;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_three_times_the_recent_90th_percentile() {
        let hedging = Hedging::default();
        (0..RECENT_MIN - 1).for_each(|_| hedging.record(Duration::from_millis(1)));
        assert_eq!(hedging.late_after(), None);
        hedging.record(Duration::from_millis(1));
        assert_eq!(hedging.late_after(), Some(LATE_MIN));
        (0..RECENT as u64).for_each(|i| hedging.record(Duration::from_millis(100 + i)));
        assert_eq!(hedging.late_after(), Some(Duration::from_millis(3 * 157)));
    }

    #[test]
    fn hedged_requests_are_one_in_twenty() {
        let hedging = Hedging::default();
        let hedged = (0..10_000)
            .filter(|_| {
                hedging.record(Duration::from_millis(1));
                hedging.try_hedge()
            })
            .count();
        assert_eq!(hedged, 500);
        assert!(!hedging.try_hedge());
    }
}
