//! Hedged requests: what is late, or arrives slowly, is requested again on another connection.
//!
//! - *A response is late* when it exceeds the upper quartile of the recent times by [`SPREADS`] times
//!   the difference between that and their median, within bounds: by an eighth to a half of the
//!   quartile. The request is sent again, and the first of the two responses to begin is read.
//! - *A body lags* when, in a period of twice the time to the first byte, it delivers less than a
//!   quarter of what the recent bodies have delivered in that time, and a new request for the rest
//!   would take less than half of the time that the body needs at its present rate. Its connection
//!   is closed, and the rest of its range is requested again.
//! - *A body is silent* when it has delivered nothing for half as long again as the longest pauses
//!   of three quarters of the recent bodies. A body that pauses for a shorter time does not lag: a
//!   server may pause in every body. One that pauses for longer, and for the time to the first byte,
//!   lags.
//!
//! Neither is said of a client that had no processor, as its timers are late then: it has not looked
//! at its sockets, and what it waits for may be there.
//!
//! A budget limits repeated requests to one in twenty, so that a server which is slow altogether
//! does not get twice the work. Those that are finished in the usual time cost half: they show that
//! the server is not slow altogether. A body that was silent for several periods has failed, unless
//! all bodies have: its range is requested again without the budget, and takes the tokens of a
//! retry. If that takes longer than usual, too, its silence counts as a pause that is to be expected.

use crate::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How many recent times and rates are kept.
const RECENT: usize = 64;
/// With fewer recent ones than this, no response counts as late and no body lags.
const RECENT_MIN: usize = 16;
/// No response counts as late before this time.
const LATE_MIN: Duration = Duration::from_millis(100);
/// By so many times the difference between the upper quartile and the median do late times exceed the
/// quartile. Of normally distributed times, one in 300 does.
const SPREADS: u32 = 3;
/// A repeated request costs as much of the budget as this many responses add to it.
const COST: u32 = 20;
const BUDGET_MAX: u32 = 32 * COST;
/// With so much of it a server begins: the late ones of the first responses hold memory, too.
const BUDGET_FIRST: u32 = 8 * COST;
/// What is given back of it when the repeated request was finished in the usual time.
const HELPED: u32 = COST / 2;
/// Bodies of fewer bytes say nothing about rates.
const RATE_BYTES_MIN: u64 = 64 << 10;
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

#[derive(Debug)]
struct HedgingState {
    first_bytes: Recent<Duration>,
    /// In bytes a second.
    rates: Recent<u64>,
    /// The longest pauses of bodies.
    pauses: Recent<Duration>,
    /// How many bodies have arrived, and how many are arriving.
    arrived: u64,
    arriving: usize,
    budget: u32,
}

impl Default for HedgingState {
    fn default() -> Self {
        Self {
            first_bytes: Recent::default(),
            rates: Recent::default(),
            pauses: Recent::default(),
            arrived: 0,
            arriving: 0,
            budget: BUDGET_FIRST,
        }
    }
}

impl HedgingState {
    fn late_after(&self) -> Option<Duration> {
        let [half, most] = [50, 75].map(|hundredths| self.first_bytes.percentile(hundredths));
        let (half, most) = (half?, most?);
        Some((most + (SPREADS * (most - half)).clamp(most / 8, most / 2)).max(LATE_MIN))
    }

    fn usual_pace(&self) -> Option<UsualPace> {
        let first_byte = self.first_bytes.percentile(50)?;
        let silence = self.pauses.percentile(75)? * 3 / 2;
        let bytes_per_second = self.rates.percentile(50).map(|rate| rate.max(1) as f64);
        let Self { arrived, arriving, .. } = *self;
        Some(UsualPace { bytes_per_second, first_byte, silence, arrived, arriving })
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
    /// `None` while too few bodies of some length have arrived.
    bytes_per_second: Option<f64>,
    first_byte: Duration,
    /// Shorter pauses of a body are to be expected.
    silence: Duration,
    arrived: u64,
    arriving: usize,
}

/// A body that is arriving.
pub(crate) struct ArrivingBody<'a> {
    hedging: &'a Hedging,
    began: Instant,
    len: u64,
    arrival: Mutex<Arrival>,
}

/// What has arrived of a body.
struct Arrival {
    bytes: u64,
    last: Instant,
    longest_pause: Duration,
}

impl ArrivingBody<'_> {
    /// Counts `bytes` that have arrived.
    pub fn received(&self, bytes: u64) {
        let mut arrival = self.arrival.lock();
        let now = Instant::now();
        arrival.longest_pause = arrival.longest_pause.max(now - arrival.last);
        arrival.bytes += bytes;
        arrival.last = now;
    }

    /// How many bytes are missing.
    pub fn left(&self) -> u64 {
        self.len.saturating_sub(self.arrival.lock().bytes)
    }

    /// How long nothing has arrived.
    pub fn silence(&self) -> Duration {
        self.arrival.lock().last.elapsed()
    }

    /// Records the rate and the longest pause of the body, all of which has arrived.
    pub fn arrived(&self) {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-6);
        let pause = self.arrival.lock().longest_pause;
        let mut state = self.hedging.state.lock();
        state.arrived += 1;
        state.pauses.record(pause);
        if self.len >= RATE_BYTES_MIN {
            state.rates.record((self.len as f64 / seconds) as u64);
        }
    }
}

impl Drop for ArrivingBody<'_> {
    fn drop(&mut self) {
        self.hedging.state.lock().arriving -= 1;
    }
}

/// A request that was repeated, until it is known whether that helped.
#[derive(Debug)]
pub(crate) struct Repeat {
    sent: Instant,
    /// For how long the body was silent whose rest is requested.
    silence: Option<Duration>,
    /// What the budget gets back if it helps.
    refund: u32,
}

impl Repeat {
    /// A repeated request for the rest of a body that was silent for so long, without the budget.
    pub fn of_silent(silence: Duration) -> Self {
        Self { sent: Instant::now(), silence: Some(silence), refund: 0 }
    }

    /// This, for the rest of a body that was silent for so long.
    pub fn after(self, silence: Duration) -> Self {
        Self { silence: Some(silence), ..self }
    }
}

impl UsualPace {
    /// The time in which a body is compared with others.
    pub fn period(&self) -> Duration {
        (2 * self.first_byte).max(PERIOD_MIN)
    }

    /// A body that has delivered nothing for so long lags: a new request would have been answered.
    pub fn long_pause(&self) -> Duration {
        self.silence.max(self.first_byte).max(PERIOD_MIN)
    }

    /// Whether a body that has delivered `bytes` in a period, nothing for `silence`, and has `left` to
    /// deliver, lags behind so far that a new request would deliver them sooner.
    pub fn lags(&self, bytes: u64, silence: Duration, left: u64) -> bool {
        let Some(usual) = self.bytes_per_second else { return false };
        if bytes == 0 && silence < self.silence {
            return false;
        }
        let bytes = if silence >= self.long_pause() { 0 } else { bytes };
        let rate = bytes as f64 / self.period().as_secs_f64();
        let new_request = self.first_byte.as_secs_f64() + left as f64 / usual;
        rate < LAGGING * usual && left as f64 > 2.0 * new_request * rate
    }

    /// Whether a body that has delivered nothing for so long has stopped.
    pub fn is_silent(&self, time: Duration) -> bool {
        time >= (self.period() * SILENT_PERIODS).max(SILENT_MIN).max(self.silence)
    }

    /// The time in which a request of `bytes` is finished, unless it is late.
    fn finished_after(&self, bytes: u64) -> Duration {
        let receiving = self.bytes_per_second.map_or(0.0, |usual| bytes as f64 / usual);
        ((self.first_byte + Duration::from_secs_f64(receiving)) * 3 / 2).max(LATE_MIN)
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

    /// Counts a body of `len` bytes that begins to arrive.
    pub fn body(&self, len: u64) -> ArrivingBody<'_> {
        self.state.lock().arriving += 1;
        let began = Instant::now();
        let arrival = Arrival { bytes: 0, last: began, longest_pause: Duration::ZERO };
        ArrivingBody { hedging: self, began, len, arrival: Mutex::new(arrival) }
    }

    /// The time after which a response is late; `None` while too few times are known.
    pub fn late_after(&self) -> Option<Duration> {
        self.state.lock().late_after()
    }

    /// What bodies usually deliver; `None` while too few are known.
    pub fn usual_pace(&self) -> Option<UsualPace> {
        self.state.lock().usual_pace()
    }

    /// Takes the cost of a repeated request from the budget, unless that is too small.
    pub fn try_repeat(&self) -> Option<Repeat> {
        let mut state = self.state.lock();
        state.budget = state.budget.checked_sub(COST)?;
        Some(Repeat { sent: Instant::now(), silence: None, refund: HELPED })
    }

    /// Records that all `bytes` of a repeated request have arrived, whose answer `waited` for memory.
    /// In the usual time, it has helped, and a part of its cost is given back. Otherwise what it
    /// repeated was not slower than others.
    pub fn finished(&self, repeat: &Repeat, bytes: u64, waited: Duration) {
        let mut state = self.state.lock();
        let usual = state.usual_pace().map(|pace| pace.finished_after(bytes));
        if usual.is_some_and(|usual| repeat.sent.elapsed() < usual + waited) {
            state.budget = (state.budget + repeat.refund).min(BUDGET_MAX);
        } else if let Some(silence) = repeat.silence {
            state.pauses.record(silence);
        }
    }
}

#[cfg(test)]
mod tests;
