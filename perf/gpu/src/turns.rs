//! Turns: compared variants are measured alternately, within seconds of each other. The first turn
//! only warms up. Results are the medians of the turns.

use std::ops::Range;
use std::time::{Duration, Instant};

/// The number of turns of each part, and the time limit.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    turns: usize,
    end: Instant,
}

/// One turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Whether it is the warm-up turn.
    pub warms_up: bool,
}

impl Clock {
    /// `count` turns for each part; none begins after `time`.
    pub fn new(turns: usize, time: Duration) -> Self {
        Self { turns, end: Instant::now() + time }
    }

    /// The clock of one of `parts` remaining parts, which may use its share of the remaining time.
    pub fn share(&self, parts: u32) -> Self {
        let now = Instant::now();
        let left = self.end.saturating_duration_since(now);
        Self { turns: self.turns, end: now + left / parts.max(1) }
    }

    /// The number of counted turns.
    pub fn turns(&self) -> usize {
        self.turns
    }

    /// The turns of one part: a warm-up turn, then counted turns until the time is up.
    pub fn take(&self) -> impl Iterator<Item = Turn> + use<> {
        let end = self.end;
        let turns: Range<usize> = 0..self.turns + 1;
        turns.take_while(move |_| Instant::now() < end).map(|number| Turn { warms_up: number == 0 })
    }
}

/// The figures of one variant, turn by turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// Adds the figure of `turn`, unless it is the warm-up turn.
    pub fn add(&mut self, turn: Turn, figure: f64) {
        if !turn.warms_up {
            self.0.push(figure);
        }
    }

    /// These figures divided by those, turn by turn.
    pub fn over(&self, others: &Self) -> Self {
        self.with(others, |figure, by| figure / by)
    }

    /// The larger figure of each turn.
    pub fn or_more(&self, others: &Self) -> Self {
        self.with(others, f64::max)
    }

    fn with(&self, others: &Self, act: impl Fn(f64, f64) -> f64) -> Self {
        Self(std::iter::zip(&self.0, &others.0).map(|(&one, &other)| act(one, other)).collect())
    }

    /// Applies a function to each figure.
    pub fn map(&self, act: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|&figure| act(figure)).collect())
    }

    /// The median.
    pub fn median(&self) -> Option<f64> {
        let mut figures = self.0.clone();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        match figures.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(figures[middle]),
            _ => Some((figures[middle - 1] + figures[middle]) / 2.0),
        }
    }

    /// The smallest and the greatest figure.
    pub fn range(&self) -> Option<(f64, f64)> {
        let least = self.0.iter().copied().reduce(f64::min)?;
        Some((least, self.0.iter().copied().reduce(f64::max)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_turn_does_not_count_and_none_begins_after_the_end() {
        let clock = Clock::new(2, Duration::from_secs(60));
        let mut samples = Samples::default();
        for (figure, turn) in [9.0, 1.0, 2.0].into_iter().zip(clock.take()) {
            samples.add(turn, figure);
        }
        assert_eq!(samples.0, [1.0, 2.0]);
        assert_eq!(clock.take().count(), 3);
        assert_eq!(Clock::new(2, Duration::ZERO).take().count(), 0);
        assert!(clock.share(3).end < clock.end && clock.share(1).end == clock.end);
    }

    #[test]
    fn ratios_are_taken_within_turns() {
        let loads = Samples(vec![9.0, 1.0, 4.0]);
        let limits = Samples(vec![10.0, 10.0, 5.0]).or_more(&Samples(vec![1.0, 2.0, 8.0]));
        let ratios = loads.over(&limits);
        assert_eq!(ratios.0, [0.9, 0.1, 0.5]);
        assert_eq!(ratios.median(), Some(0.5));
        assert_eq!(ratios.range(), Some((0.1, 0.9)));
        assert_eq!(Samples(vec![1.0, 2.0]).median(), Some(1.5));
        assert_eq!(Samples::default().median(), None);
    }
}
