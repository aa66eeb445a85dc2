//! A rate, kept by a clock that runs as fast as the bytes that are granted.

use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// A rate of bytes or requests a second.
#[derive(Debug)]
pub struct Pace {
    rate: f64,
    /// How much of the rate may be made up for after a pause.
    burst: Duration,
    /// When everything that was granted has been used up.
    used_up: Cell<Instant>,
}

impl Pace {
    /// A pace of `rate` a second.
    pub fn new(rate: f64, burst: Duration) -> Self {
        Self { rate, burst, used_up: Cell::new(Instant::now()) }
    }

    /// Grants `amount`, and returns when it has been used up at this rate.
    pub fn grant(&self, amount: f64) -> Instant {
        let now = Instant::now();
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        let from = self.used_up.get().max(earliest);
        let until = from + Duration::from_secs_f64(amount / self.rate);
        self.used_up.set(until);
        until
    }

    /// Ends what may be made up for.
    pub fn restart(&self) {
        self.used_up.set(self.used_up.get().max(Instant::now()));
    }

    /// Grants one if the rate allows it now.
    pub fn try_grant(&self) -> bool {
        let allowed = self.used_up.get() <= Instant::now();
        if allowed {
            self.grant(1.0);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn amounts_take_their_time_and_pauses_are_made_up_for_within_the_burst() {
        let pace = Pace::new(100.0, Duration::from_secs(1));
        let began = Instant::now();
        assert_eq!(pace.grant(50.0), began + Duration::from_millis(500));
        assert_eq!(pace.grant(50.0), began + Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        let later = Instant::now();
        assert_eq!(pace.grant(100.0), later, "a burst of a second");
        assert_eq!(pace.grant(100.0), later + Duration::from_secs(1));
        assert!(!pace.try_grant());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.try_grant() && !pace.try_grant());
    }
}
