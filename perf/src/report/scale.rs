//! Axes: the position of a figure, and the ticks.

use crate::report::text::{trimmed, with_digits};

/// The kind of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Linear, from zero or the lowest figure.
    Linear,
    /// Logarithmic, with base ten.
    Decades,
    /// Logarithmic, with base two.
    Doublings,
}

/// An axis: a range of figures and its position in the plot.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    kind: Kind,
    /// The figures at either end.
    low: f64,
    high: f64,
    /// The positions of the ends, in pixels.
    start: f64,
    end: f64,
    /// The distance between ticks of a linear axis.
    step: f64,
}

impl Scale {
    /// From zero to the first tick that is not below `high`.
    pub fn from_zero(high: f64, ticks: usize, start: f64, end: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = nice_step(high / ticks.max(1) as f64);
        // A hair less, so that 0.3 / 0.1 does not take a fourth step.
        let high = step * (high / step - 1e-9).ceil();
        Self { kind: Kind::Linear, low: 0.0, high, start, end, step }
    }

    /// Exactly from `low` to `high`.
    pub fn linear(low: f64, high: f64, ticks: usize, start: f64, end: f64) -> Self {
        let (low, high) = if high > low { (low, high) } else { (low - 1.0, low + 1.0) };
        let step = nice_step((high - low) / ticks.max(1) as f64);
        Self { kind: Kind::Linear, low, high, start, end, step }
    }

    /// A logarithmic axis for figures above zero, with a margin at both ends.
    pub fn factors(kind: Kind, low: f64, high: f64, start: f64, end: f64) -> Self {
        let low = if low > 0.0 { low } else { 1e-9 };
        let high = high.max(low);
        let room = (high / low).powf(0.04).max(1.1);
        Self { kind, low: low / room, high: high * room, start, end, step: 0.0 }
    }

    pub fn at(&self, figure: f64) -> f64 {
        let share = match self.kind {
            Kind::Linear => (figure - self.low) / (self.high - self.low),
            _ if figure <= 0.0 => 0.0,
            _ => (figure / self.low).ln() / (self.high / self.low).ln(),
        };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// The same figures in another range of pixels.
    pub fn ending_at(self, end: f64) -> Self {
        Self { end, ..self }
    }

    /// Where the axis begins and ends.
    pub fn ends(&self) -> (f64, f64) {
        (self.start, self.end)
    }

    /// The figures at either end.
    pub fn figures(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    pub fn ticks(&self) -> Vec<f64> {
        match self.kind {
            Kind::Linear => self.steps(),
            Kind::Doublings => thinned(self.powers(2.0, &[1.0]), 8),
            Kind::Decades => {
                let fine = self.powers(10.0, &[1.0, 2.0, 5.0]);
                if fine.len() <= 10 { fine } else { thinned(self.powers(10.0, &[1.0]), 8) }
            }
        }
    }

    /// The label of a tick.
    pub fn tick_text(&self, tick: f64) -> String {
        match self.kind {
            Kind::Linear => {
                let decimals = (-self.step.log10().floor()).clamp(0.0, 9.0) as usize;
                // A step of 2.5 needs one more; where it is 2, that one is a zero.
                let text = format!("{tick:.0$}", decimals + 1);
                if trimmed(&text) == "-0" { "0".to_owned() } else { trimmed(&text).to_owned() }
            }
            _ => trimmed(&with_digits(tick, 6)).to_owned(),
        }
    }

    fn steps(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        let count = ((self.high - self.low) / self.step + 1e-6).floor().clamp(0.0, 50.0) as usize;
        (0..=count)
            .map(|index| (first + index as f64) * self.step)
            .filter(|tick| *tick <= self.high + self.step * 1e-6)
            .collect()
    }

    /// `factors` times every power of `base` on the axis.
    fn powers(&self, base: f64, factors: &[f64]) -> Vec<f64> {
        let exponent = |figure: f64| figure.log(base).floor().clamp(-100.0, 100.0) as i32;
        (exponent(self.low)..=exponent(self.high))
            .flat_map(|power| factors.iter().map(move |factor| factor * base.powi(power)))
            .filter(|tick| (self.low..=self.high).contains(tick))
            .collect()
    }
}

/// The lowest of 1, 2, 2.5 and 5 times a power of ten that is at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10_f64.powi(step.max(1e-12).log10().floor() as i32);
    let nice = [1.0, 2.0, 2.5, 5.0].into_iter().find(|nice| nice * power >= step * (1.0 - 1e-9));
    nice.unwrap_or(10.0) * power
}

/// Every nth tick, so that at most `most` remain.
fn thinned(ticks: Vec<f64>, most: usize) -> Vec<f64> {
    let every = ticks.len().div_ceil(most).max(1);
    ticks.into_iter().step_by(every).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_has_round_ticks_and_holds_its_greatest_figure() {
        let scale = Scale::from_zero(2.31, 5, 0.0, 100.0);
        assert_eq!(scale.ticks(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(scale.at(2.5), 100.0);
        let texts: Vec<String> = scale.ticks().iter().map(|it| scale.tick_text(*it)).collect();
        assert_eq!(texts, ["0", "0.5", "1", "1.5", "2", "2.5"]);
        let scale = Scale::from_zero(0.3, 3, 0.0, 1.0);
        assert_eq!(scale.ticks().len(), 4);
        assert_eq!(scale.tick_text(scale.ticks()[3]), "0.3");
        let scale = Scale::from_zero(20_000.0, 4, 0.0, 1.0);
        assert_eq!(scale.tick_text(5000.0), "5000");
    }

    #[test]
    fn doublings_are_equally_far_apart() {
        let scale = Scale::factors(Kind::Doublings, 64.0, 16384.0, 0.0, 100.0);
        assert_eq!(scale.ticks(), [64.0, 256.0, 1024.0, 4096.0, 16384.0].map(|it| it).to_vec());
        let apart = scale.at(256.0) - scale.at(64.0);
        assert!((scale.at(16384.0) - scale.at(4096.0) - apart).abs() < 1e-9);
    }

    #[test]
    fn nothing_breaks_where_there_is_no_range() {
        for scale in [
            Scale::from_zero(0.0, 5, 0.0, 1.0),
            Scale::linear(4.0, 4.0, 5, 0.0, 1.0),
            Scale::factors(Kind::Decades, 0.0, 0.0, 0.0, 1.0),
            Scale::factors(Kind::Doublings, 1.0, 1e15, 0.0, 1.0),
        ] {
            assert!(scale.at(4.0).is_finite());
            assert!(scale.ticks().len() < 60, "{scale:?}");
        }
    }
}
