//! Medians, confidence intervals, and whether two clients differ.
//!
//! Clients are compared turn by turn, so that a temporary slowdown of the machine affects both. The
//! ratios of the turns have a median and an interval of order statistics that contains the true
//! median with a confidence of at least 93 % (the sign test: for five turns the interval from the
//! lowest to the highest ratio, 15/16). Two clients differ if the interval excludes 1 by more than
//! the noise.

use serde::{Deserialize, Serialize};

/// A median, and the confidence interval of the true median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The median of the figures.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// The number of figures.
    pub count: usize,
}

/// Whether two clients differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The first has less.
    Less,
    /// The first has more.
    More,
    /// The difference is within the noise.
    WithinNoise,
}

/// The side of a target on which a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The target or less.
    AtMost,
    /// The target or more.
    AtLeast,
}

impl Bound {
    /// Whether `figure` is on the right side of `target`.
    pub fn is_met(self, figure: f64, target: f64) -> bool {
        match self {
            Bound::AtMost => figure <= target,
            Bound::AtLeast => figure >= target,
        }
    }

    /// `<=` or `>=`.
    pub fn as_str(self) -> &'static str {
        if self == Bound::AtMost { "<=" } else { ">=" }
    }
}

/// The number of turns that are needed to decide whether two clients differ.
const ENOUGH: usize = 5;
/// The confidence of an interval.
const CONFIDENCE: f64 = 0.93;

/// The median of `figures`; `None` if there are none.
pub fn median(figures: &[f64]) -> Option<f64> {
    Some(estimate(figures)?.median)
}

/// The median of `figures` and its interval; with fewer than five figures that is all of them.
pub fn estimate(figures: &[f64]) -> Option<Estimate> {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let count = figures.len();
    let (left_out, last) = (left_out(count), count.checked_sub(1)?);
    let median = f64::midpoint(figures[last / 2], figures[count / 2]);
    Some(Estimate { median, low: figures[left_out], high: figures[last - left_out], count })
}

/// The ratios of `these` to `those`, turn by turn.
pub fn ratios(these: &[f64], those: &[f64]) -> Vec<f64> {
    std::iter::zip(these, those).map(|(this, that)| this / that.max(f64::MIN_POSITIVE)).collect()
}

/// Whether an estimated ratio shows a difference, given the `noise` (0.05: from 0.95 to 1.05).
pub fn difference(ratio: Estimate, noise: f64) -> Difference {
    if ratio.count < ENOUGH {
        Difference::WithinNoise
    } else if ratio.high < 1.0 && ratio.median < 1.0 - noise {
        Difference::Less
    } else if ratio.low > 1.0 && ratio.median > 1.0 + noise {
        Difference::More
    } else {
        Difference::WithinNoise
    }
}

/// The number of the `count` ordered figures that are outside of the interval on each side.
fn left_out(count: usize) -> usize {
    // That the true median is below the k-th least of n: the chance of fewer than k heads in n throws.
    let count = count.min(60);
    let (mut chance, mut tail, mut out) = (0.5_f64.powi(count as i32), 0.0, 0);
    for heads in 0..count / 2 {
        tail += chance;
        if 1.0 - 2.0 * tail < CONFIDENCE {
            break;
        }
        out = heads;
        chance *= (count - heads) as f64 / (heads + 1) as f64;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        // n and the rank of the lower end, from 0: 2 * P(fewer than rank + 1 heads) is at most 7 %.
        for (count, rank) in [(1, 0), (4, 0), (5, 0), (7, 0), (8, 0), (9, 1), (12, 2), (20, 5)] {
            assert_eq!(left_out(count), rank, "{count}");
        }
        let figures: Vec<f64> = (0..9).map(f64::from).collect();
        assert_eq!(
            estimate(&figures),
            Some(Estimate { median: 4.0, low: 1.0, high: 7.0, count: 9 })
        );
    }

    #[test]
    fn a_difference_within_the_noise_is_none() {
        let of = |figures: &[f64], noise| difference(estimate(figures).unwrap(), noise);
        assert_eq!(of(&[0.8, 0.85, 0.9, 0.82, 0.95], 0.0), Difference::Less);
        assert_eq!(of(&[0.8, 0.85, 0.9, 0.82, 0.95], 0.2), Difference::WithinNoise);
        assert_eq!(of(&[0.8, 0.85, 0.9, 0.82, 1.01], 0.0), Difference::WithinNoise);
        assert_eq!(of(&[1.2, 1.3, 1.1, 1.4, 1.5], 0.05), Difference::More);
        assert_eq!(of(&[0.1, 0.1, 0.1, 0.1], 0.0), Difference::WithinNoise);
    }

    #[test]
    fn a_slow_turn_slows_both() {
        assert_eq!(ratios(&[1.0, 4.0], &[2.0, 8.0]), [0.5, 0.5]);
    }
}
