//! The texts of figures and sentences, which the page, the terminal and the documents share.
//!
//! An invalid figure (not finite, or beyond anything that is measured) is a dash.

use crate::records::{Bound, Comparison, Figure, Noise, Target};
use crate::results::is_usable;
use ringload_measure::stats::Difference;
use ringload_measure::table::number;

/// The text for a missing figure.
pub const NONE: &str = "\u{2013}";

/// A number with three significant digits.
pub fn digits(figure: f64) -> String {
    if is_usable(figure) { number(figure) } else { NONE.to_owned() }
}

/// A share as "12.3 %".
pub fn percent(share: f64) -> String {
    format!("{} %", trimmed(&digits(share * 100.0)))
}

/// As "16 GiB", "1.5 GiB", "64 MiB".
pub fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut figure, mut unit) = (bytes, 0);
    while figure >= 1024.0 && unit + 1 < units.len() {
        figure /= 1024.0;
        unit += 1;
    }
    format!("{} {}", trimmed(&digits(figure)), units[unit])
}

/// Removes trailing zeros after the decimal point.
pub fn trimmed(figure: &str) -> &str {
    match figure.contains('.') {
        true => figure.trim_end_matches('0').trim_end_matches('.'),
        false => figure,
    }
}

/// Replaces control characters, which could otherwise command a terminal.
pub fn without_controls(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

/// As "ringload: 0.31 x Run:ai's time (0.28 to 0.35)".
pub fn comparison(comparison: &Comparison) -> String {
    let Comparison { own, other, difference, .. } = comparison;
    let interval = format!("{} to {}", digits(comparison.low), digits(comparison.high));
    let (time, times) = match comparison.figure {
        Figure::Seconds => ("time", digits(comparison.ratio)),
        Figure::CpuSecondsPerGigabyte => ("CPU time per GB", digits(comparison.ratio)),
    };
    match difference {
        Difference::WithinNoise => format!(
            "{own}: {time} not different from {other}'s beyond the noise ({times} x, {interval})"
        ),
        _ => format!("{own}: {times} x {other}'s {time} ({interval})"),
    }
}

pub fn noise(noise: &Noise) -> String {
    format!(
        "a fixed loop between the runs took up to {} x its shortest time; the host gave {} of the \
         CPU time to others, and processes outside of the measurement took {}",
        digits(noise.loop_spread),
        percent(noise.stolen_share),
        percent(noise.others_share)
    )
}

/// The result of a target.
pub fn outcome(target: &Target) -> &'static str {
    match target.is_reached() {
        Some(true) => "pass",
        Some(false) => "FAIL",
        None => "not measured",
    }
}

/// The figure of a target, with enough digits to show on which side of the target it is.
pub fn figure(target: &Target) -> String {
    let Some(figure) = target.figure.filter(|figure| is_usable(*figure)) else {
        return NONE.to_owned();
    };
    let precise = (3..10).map(|count| format!("{figure:.count$}"));
    let mut texts = std::iter::once(digits(figure)).chain(precise);
    let side = |figure: f64| figure.partial_cmp(&target.target);
    let shows = |text: &String| text.parse().is_ok_and(|shown| side(shown) == side(figure));
    texts.find(shows).unwrap_or_else(|| figure.to_string())
}

/// The interval of a target's figure, as "0.28 to 0.35".
pub fn interval(target: &Target) -> Option<String> {
    let (low, high) = target.figure.and(target.low.zip(target.high))?;
    Some(format!("{} to {}", digits(low), digits(high)))
}

/// As "at most 0.85".
pub fn bound(target: &Target) -> String {
    let bound = match target.bound {
        Bound::AtMost => "at most",
        Bound::AtLeast => "at least",
    };
    format!("{bound} {}", target.target)
}

/// The number of targets by result.
pub fn count(targets: &[&Target]) -> String {
    let of = |name| targets.iter().filter(|target| outcome(target) == name).count();
    let [pass, fail, none] = ["pass", "FAIL", "not measured"].map(of);
    let all = targets.len();
    let count = format!("{all} targets: {pass} reached, {fail} missed, {none} not measured");
    match targets.iter().filter(|target| target.is_close()).count() {
        0 => count,
        close => format!("{count}; {close} so close that another run may differ"),
    }
}
