//! Hedged requests: what is late, or arrives slowly, is requested again on another connection.
//!
//! - *A response is late* when it takes half as long again as three quarters of the recent ones.
//!   The request is sent again, and the first of the two responses to begin is read.
//! - *A body lags* when, in a period of twice the time to the first byte, it delivers less than a
//!   quarter of what the recent bodies have delivered in that time, and a new request for the rest
//!   would take less than half of the time that the body needs at its present rate. Its connection
//!   is closed, and the rest of its range is requested again.
//!
//! A budget limits repeated requests to one in twenty, so that a server which is slow altogether
//! does not get twice the work. Those that are answered in the usual time cost half: they show that
//! the server is not slow altogether. A body that has delivered nothing for several periods has
//! failed, unless all bodies have: its range is requested again without the budget, and takes the
//! tokens of a retry.

use crate::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How many recent times and rates are kept.
const RECENT: usize = 64;
/// With fewer recent ones than this, no response counts as late and no body lags.
const RECENT_MIN: usize = 16;
/// No response counts as late before this time.
const LATE_MIN: Duration = Duration::from_millis(100);
/// A repeated request costs as much of the budget as this many responses add to it.
const COST: u32 = 20;
const BUDGET_MAX: u32 = 32 * COST;
/// What is given back of it when the repeated request was answered in the usual time.
const HELPED: u32 = COST / 2;
/// The shortest period in which bodies are compared.
const PERIOD_MIN: Duration = Duration::from_millis(100);
/// The share of the usual rate below which a body may lag.
const LAGGING: f64 = 0.25;
/// A body is silent after this many periods without a byte, and not before this time.
const SILENT_PERIODS: u32 = 4;
const SILENT_MIN: Duration = Duration::from_secs(1);
/// If no more bodies than these are silent, the server as a whole may have paused or not.
const FEW: usize = 8;

/// The recent times to first byte and rates of bodies of one server, and the budget of repeated
/// requests.
#[derive(Debug, Default)]
pub(crate) struct Hedging {
    state: Mutex<HedgingState>,
}

#[derive(Debug, Default)]
struct HedgingState {
    first_bytes: Recent<Duration>,
    /// In bytes a second.
    rates: Recent<u64>,
    /// How many bodies have arrived, and how many are arriving.
    arrived: u64,
    arriving: usize,
    budget: u32,
}

impl HedgingState {
    fn late_after(&self) -> Option<Duration> {
        Some((self.first_bytes.percentile(75)? * 3 / 2).max(LATE_MIN))
    }
}

/// The last values of something.
#[derive(Debug, Default)]
struct Recent<T> {
    values: Vec<T>,
    next: usize,
}

impl<T: Copy + Ord> Recent<T> {
    fn record(&mut self, value: T) {
        match self.values.get_mut(self.next) {
            Some(oldest) => *oldest = value,
            None => self.values.push(value),
        }
        self.next = (self.next + 1) % RECENT;
    }

    /// The value that this many hundredths are below; `None` while too few are known.
    fn percentile(&self, hundredths: usize) -> Option<T> {
        let mut values = self.values.clone();
        if values.len() < RECENT_MIN {
            return None;
        }
        let rank = values.len() * hundredths / 100;
        Some(*values.select_nth_unstable(rank).1)
    }
}

/// What bodies usually deliver.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct UsualPace {
    bytes_per_second: f64,
    first_byte: Duration,
    arrived: u64,
    arriving: usize,
}

/// A body that is arriving.
pub(crate) struct ArrivingBody<'a> {
    hedging: &'a Hedging,
    began: Instant,
}

impl ArrivingBody<'_> {
    /// Records the rate of the body, of which all `bytes` have arrived.
    pub fn arrived(&self, bytes: u64) {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-6);
        let mut state = self.hedging.state.lock();
        state.arrived += 1;
        state.rates.record((bytes as f64 / seconds) as u64);
    }
}

impl Drop for ArrivingBody<'_> {
    fn drop(&mut self) {
        self.hedging.state.lock().arriving -= 1;
    }
}

impl UsualPace {
    /// The time in which a body is compared with others.
    pub fn period(&self) -> Duration {
        (2 * self.first_byte).max(PERIOD_MIN)
    }

    /// Whether a body that has delivered `bytes` in a period, and has `left` to deliver, lags behind so
    /// far that a new request would deliver them sooner.
    pub fn lags(&self, bytes: u64, left: u64) -> bool {
        let rate = bytes as f64 / self.period().as_secs_f64();
        let new_request = self.first_byte.as_secs_f64() + left as f64 / self.bytes_per_second;
        rate < LAGGING * self.bytes_per_second && left as f64 > 2.0 * new_request * rate
    }

    /// Whether a body that has delivered nothing for so long has stopped.
    pub fn is_silent(&self, time: Duration) -> bool {
        time >= (self.period() * SILENT_PERIODS).max(SILENT_MIN)
    }

    /// Whether all bodies have paused between this and `later`: many are arriving, and none has
    /// arrived.
    pub fn is_pause(&self, later: &Self) -> bool {
        self.arrived == later.arrived && later.arriving > FEW
    }
}

impl Hedging {
    /// Records the time to first byte of a response. However late it was, it counts as just late,
    /// so that some very late ones do not change much.
    pub fn record(&self, took: Duration) {
        let mut state = self.state.lock();
        state.budget = (state.budget + 1).min(BUDGET_MAX);
        let late = state.late_after().unwrap_or(took);
        state.first_bytes.record(took.min(late));
    }

    /// Counts a body that begins to arrive.
    pub fn body(&self) -> ArrivingBody<'_> {
        self.state.lock().arriving += 1;
        ArrivingBody { hedging: self, began: Instant::now() }
    }

    /// The time after which a response is late; `None` while too few times are known.
    pub fn late_after(&self) -> Option<Duration> {
        self.state.lock().late_after()
    }

    /// What bodies usually deliver; `None` while too few are known.
    pub fn usual_pace(&self) -> Option<UsualPace> {
        let state = self.state.lock();
        let bytes_per_second = state.rates.percentile(50)?.max(1) as f64;
        let first_byte = state.first_bytes.percentile(50)?;
        let HedgingState { arrived, arriving, .. } = *state;
        Some(UsualPace { bytes_per_second, first_byte, arrived, arriving })
    }

    /// Gives back a part of the cost of a repeated request, which was answered in the usual time.
    pub fn helped(&self) {
        let mut state = self.state.lock();
        state.budget = (state.budget + HELPED).min(BUDGET_MAX);
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
    fn late_is_half_as_much_again_as_three_quarters_of_the_recent_responses_take() {
        let hedging = Hedging::default();
        (0..RECENT_MIN - 1).for_each(|_| hedging.record(Duration::from_millis(1)));
        assert_eq!(hedging.late_after(), None);
        hedging.record(Duration::from_millis(1));
        assert_eq!(hedging.late_after(), Some(LATE_MIN));
        // A server that is slower as a whole is soon known as such.
        (0..4).for_each(|_| hedging.record(Duration::from_secs(1)));
        assert_eq!(hedging.late_after(), Some(LATE_MIN));
        (0..RECENT as u64).for_each(|i| hedging.record(Duration::from_millis(100 + i)));
        (0..RECENT as u64).for_each(|i| hedging.record(Duration::from_millis(100 + i)));
        assert_eq!(hedging.late_after(), Some(Duration::from_millis(148 * 3 / 2)));
        // A fifth of them being late does not change what is late.
        (0..12).for_each(|_| hedging.record(Duration::from_secs(2)));
        let late = hedging.late_after().unwrap();
        assert!(late < Duration::from_millis(164 * 3 / 2), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_lags_if_a_new_request_would_be_faster() {
        let hedging = Hedging::default();
        (0..RECENT_MIN).for_each(|_| hedging.record(Duration::from_millis(100)));
        assert_eq!(hedging.usual_pace(), None);
        // 10 MB/s.
        let bodies: Vec<_> = (0..RECENT_MIN).map(|_| hedging.body()).collect();
        tokio::time::advance(Duration::from_millis(200)).await;
        bodies.iter().for_each(|body| body.arrived(2_000_000));
        let pace = hedging.usual_pace().unwrap();
        assert_eq!(pace.period(), Duration::from_millis(200));
        assert!(pace.lags(0, 1));
        assert!(!pace.lags(2_000_000, 2_000_000) && !pace.lags(500_000, 9_000_000));
        // At 2 MB/s: 1 MB takes 500 ms there, and 200 ms anew. 100 kB take 50 ms there.
        assert!(pace.lags(400_000, 1_000_000) && !pace.lags(400_000, 100_000));
        assert!(!pace.is_silent(Duration::from_millis(900)));
        assert!(pace.is_silent(Duration::from_secs(1)));
    }

    #[test]
    fn all_bodies_pause_if_many_arrive_and_none_has_arrived() {
        let hedging = Hedging::default();
        (0..RECENT_MIN).for_each(|_| hedging.record(Duration::from_millis(100)));
        (0..RECENT_MIN).for_each(|_| hedging.body().arrived(1000));
        let mut bodies: Vec<_> = (0..=FEW).map(|_| hedging.body()).collect();
        let before = hedging.usual_pace().unwrap();
        assert!(before.is_pause(&hedging.usual_pace().unwrap()));
        bodies.pop();
        assert!(!before.is_pause(&hedging.usual_pace().unwrap()), "few are left");
        bodies.push(hedging.body());
        bodies[0].arrived(1000);
        assert!(!before.is_pause(&hedging.usual_pace().unwrap()), "another one has arrived");
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
        // Half of their cost comes back where they help.
        (0..2).for_each(|_| hedging.helped());
        assert!(hedging.try_hedge() && !hedging.try_hedge());
    }
}
