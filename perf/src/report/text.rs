//! The texts of figures and sentences, which the page and the terminal share.
//!
//! An invalid figure (not finite, or beyond anything that is measured) is a dash.

use crate::records::{Bound, Comparison, Figure, Noise, Target};
use crate::stats::Difference;

/// The text for a missing figure.
pub const NONE: &str = "\u{2013}";

/// Whether a figure is valid.
pub fn is_usable(figure: f64) -> bool {
    figure.is_finite() && figure.abs() < 1e15
}

/// A number with three significant digits.
pub fn digits(figure: f64) -> String {
    with_digits(figure, 3)
}

/// A number with this many significant digits and no exponent.
pub fn with_digits(figure: f64, count: i32) -> String {
    if !is_usable(figure) {
        return NONE.to_owned();
    }
    if figure == 0.0 {
        return "0".to_owned();
    }
    let decimals = (count - 1 - figure.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{figure:.decimals$}")
}

pub fn optional(figure: Option<f64>) -> String {
    figure.map_or_else(|| NONE.to_owned(), digits)
}

/// As "0.31"; what is not quite 1 does not become "1.00".
pub fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if !is_usable(ratio) => NONE.to_owned(),
        ratio if ratio != 1.0 && (ratio - 1.0).abs() < 0.005 => format!("{ratio:.3}"),
        ratio if (0.1..10.0).contains(&ratio) => format!("{ratio:.2}"),
        ratio => with_digits(ratio, 3),
    }
}

/// A share as "12 %".
pub fn percent(share: f64) -> String {
    // The sum of nothing is -0.0.
    match share * 100.0 + 0.0 {
        percent if !is_usable(percent) => NONE.to_owned(),
        percent if percent != 0.0 && percent.abs() < 10.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
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

/// Escapes a text for HTML and SVG. Characters that are invalid in XML become U+FFFD.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other if other.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// A text for the terminal: one line without control characters.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// As "0.31 x Run:ai's time (0.28 to 0.35)".
pub fn comparison(comparison: &Comparison) -> String {
    let interval = format!("{} to {}", ratio(comparison.low), ratio(comparison.high));
    let (own, other, times) = (&comparison.own, &comparison.other, ratio(comparison.ratio));
    match (comparison.difference, comparison.figure) {
        (Difference::WithinNoise, figure) => format!(
            "{own}: no difference from {other}{} that stands out of the noise ({times} x, {interval})",
            match figure {
                Figure::Seconds => "",
                Figure::CpuSecondsPerGigabyte => " in CPU time",
            }
        ),
        (_, Figure::Seconds) => format!("{own}: {times} x {other}'s time ({interval})"),
        (_, Figure::CpuSecondsPerGigabyte) => {
            format!("{own}: {times} x {other}'s CPU time per GB ({interval})")
        }
    }
}

pub fn noise(noise: &Noise) -> String {
    format!(
        "one fixed loop between the runs took up to {} x its shortest time; the host gave {} of the \
         CPU time to others, processes outside of the measurement took {}",
        ratio(noise.loop_spread),
        percent(noise.stolen_share),
        percent(noise.others_share)
    )
}

/// The result of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    NotMeasured,
}

impl Outcome {
    pub fn of(target: &Target) -> Self {
        match target.is_reached() {
            Some(true) => Self::Pass,
            Some(false) => Self::Fail,
            None => Self::NotMeasured,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::NotMeasured => "not measured",
        }
    }
}

/// The figure of a target, with enough digits to show on which side of the target it is.
pub fn figure(target: &Target) -> String {
    let Some(figure) = target.figure.filter(|figure| is_usable(*figure)) else {
        return NONE.to_owned();
    };
    let side = figure.partial_cmp(&target.target);
    let shown = |count| with_digits(figure, count);
    (3..10)
        .map(shown)
        .find(|shown| shown.parse::<f64>().is_ok_and(|it| it.partial_cmp(&target.target) == side))
        .unwrap_or_else(|| shown(10))
}

/// The interval of a target's figure, as "0.28 to 0.35".
pub fn interval(target: &Target) -> Option<String> {
    let (low, high) = target.low.zip(target.high)?;
    Some(format!("{} to {}", digits(low), digits(high)))
}

/// As "at most 0.85".
pub fn bound(target: &Target) -> String {
    let bound = match target.bound {
        Bound::AtMost => "at most",
        Bound::AtLeast => "at least",
    };
    format!("{bound} {}", trimmed(&with_digits(target.target, 6)))
}

/// The number of targets by result.
pub fn count(targets: &[&Target]) -> String {
    let of = |outcome| targets.iter().filter(|target| Outcome::of(target) == outcome).count();
    let close = targets.iter().filter(|target| target.is_close()).count();
    let mut line = format!(
        "{} targets: {} reached, {} missed, {} not measured",
        targets.len(),
        of(Outcome::Pass),
        of(Outcome::Fail),
        of(Outcome::NotMeasured)
    );
    if close > 0 {
        line.push_str(&format!("; {close} so close that another run may say otherwise"));
    }
    line
}
