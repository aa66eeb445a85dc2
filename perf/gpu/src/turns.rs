//! Turns: compared variants are measured alternately, within seconds of each other, and compared turn
//! by turn. The first turn only warms up: the report leaves its figures out.

use std::time::{Duration, Instant};

/// The number of turns of each part, and the time limit.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    turns: usize,
    end: Instant,
}

impl Clock {
    /// `turns` turns for each part, besides the first; none begins after `time`.
    pub fn new(turns: usize, time: Duration) -> Self {
        Self { turns, end: Instant::now() + time }
    }

    /// The turns of one part, until the time is up; number 0 warms up.
    pub fn take(&self) -> impl Iterator<Item = usize> + use<> {
        let end = self.end;
        (0..=self.turns).take_while(move |_| Instant::now() < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_begins_after_the_end() {
        let clock = Clock::new(2, Duration::from_secs(60));
        assert!(clock.take().eq([0, 1, 2]));
        assert_eq!(Clock::new(2, Duration::ZERO).take().count(), 0);
    }
}
