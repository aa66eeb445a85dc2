//! Medians, spreads, and whether two clients differ.
//!
//! Clients are compared turn by turn, so that a temporary slowdown of the machine affects both. The
//! ratios of the turns have a median and an interval of order statistics that contains the true
//! median with a confidence of at least 93 % (the sign test: for five turns the interval from the
//! lowest to the highest ratio, 15/16). Two clients differ if the interval excludes 1 by more than
//! the noise.

use crate::records::Verdict;

/// A median, and the confidence interval of the true median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// The number of figures.
    pub count: usize,
}

/// The number of turns that are needed to decide whether two clients differ.
const ENOUGH: usize = 5;
/// The confidence of an interval, in ten thousandths.
const CONFIDENCE: u64 = 9300;

/// The median of `figures`.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(figures[middle]),
        _ => Some((figures[middle - 1] + figures[middle]) / 2.0),
    }
}

/// The median of `figures` and its interval; with fewer than five figures that is all of them.
pub fn estimate(figures: &[f64]) -> Option<Estimate> {
    let median = median(figures)?;
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let left_out = left_out(figures.len());
    let count = figures.len();
    Some(Estimate { median, low: figures[left_out], high: figures[count - 1 - left_out], count })
}

/// The ratios of `these` to `those`, turn by turn.
pub fn ratios(these: &[f64], those: &[f64]) -> Vec<f64> {
    std::iter::zip(these, those).map(|(this, that)| this / that.max(f64::MIN_POSITIVE)).collect()
}

/// Whether an estimated ratio shows a difference, given the `noise` (0.05: from 0.95 to 1.05).
pub fn verdict(ratio: Estimate, noise: f64) -> Verdict {
    if ratio.count < ENOUGH {
        Verdict::WithinNoise
    } else if ratio.high < 1.0 && ratio.median < 1.0 - noise {
        Verdict::Less
    } else if ratio.low > 1.0 && ratio.median > 1.0 + noise {
        Verdict::More
    } else {
        Verdict::WithinNoise
    }
}

/// The number of the `count` ordered figures that are outside of the interval on each side.
fn left_out(count: usize) -> usize {
    // That the true median is below the k-th least of n: the chance of fewer than k heads in n throws.
    let Ok(count) = u32::try_from(count.min(60)) else { return 0 };
    let all = 1_u64 << count;
    let (mut heads, mut chance, mut tail) = (0_u32, 1_u64, 1_u64);
    let mut out = 0;
    // `tail`: throws with at most `heads` heads, of `all`.
    while heads < count / 2 {
        let sure = u128::from(all - 2 * tail.min(all / 2)) * 10_000 / u128::from(all);
        if sure < u128::from(CONFIDENCE) {
            break;
        }
        out = heads as usize;
        heads += 1;
        chance = chance * u64::from(count - heads + 1) / u64::from(heads);
        tail += chance;
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
        let of = |figures: &[f64], noise| verdict(estimate(figures).unwrap(), noise);
        assert_eq!(of(&[0.8, 0.85, 0.9, 0.82, 0.95], 0.0), Verdict::Less);
        assert_eq!(of(&[0.8, 0.85, 0.9, 0.82, 0.95], 0.2), Verdict::WithinNoise);
        assert_eq!(of(&[0.8, 0.85, 0.9, 0.82, 1.01], 0.0), Verdict::WithinNoise);
        assert_eq!(of(&[1.2, 1.3, 1.1, 1.4, 1.5], 0.05), Verdict::More);
        assert_eq!(of(&[0.1, 0.1, 0.1, 0.1], 0.0), Verdict::WithinNoise);
    }

    #[test]
    fn a_slow_turn_slows_both() {
        assert_eq!(ratios(&[1.0, 4.0], &[2.0, 8.0]), [0.5, 0.5]);
    }
}
