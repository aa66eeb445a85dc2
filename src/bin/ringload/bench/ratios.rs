//! What must be reached: figures of the rows against each other.

use super::rows::{Phase, Role, Row};
use serde::Serialize;

/// The cap of the capped load may be exceeded by so much: program, headers, queues.
const OVERHEAD_BYTES: u64 = 64 << 20;

/// One figure and what it must be.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub name: &'static str,
    /// `None` where a row that it needs was not measured.
    pub figure: Option<f64>,
    pub target: f64,
    pub bound: Bound,
    pub reached: Option<bool>,
}

/// On which side of the target the figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost,
    AtLeast,
}

impl Bound {
    pub fn as_str(self) -> &'static str {
        match self {
            Bound::AtMost => "<=",
            Bound::AtLeast => ">=",
        }
    }
}

/// All of them, for `rows` and the cap of the capped one.
pub fn all(rows: &[Row], cap_bytes: Option<u64>) -> Vec<Ratio> {
    use Bound::{AtLeast, AtMost};
    let find = |phase, role| rows.iter().find(|row| row.phase == phase && row.role == role);
    let cpu = |role| find(Phase::Cold, role).and_then(Row::cpu_seconds_per_gigabyte);
    let cold = |role| find(Phase::Cold, role).and_then(Row::seconds);
    let warm = |role| find(Phase::Warm, role).and_then(Row::gigabytes_per_second);
    let resident = least([cold(Role::Auto), cold(Role::Direct)]);
    let peak = find(Phase::Cold, Role::Capped).and_then(Row::peak_bytes);
    let excess = peak.zip(cap_bytes).map(|(peak, cap)| (peak as f64 - cap as f64) / 1048576.0);
    let memcpy = fastest(rows, Role::Memcpy);
    let touch = fastest(rows, Role::MmapTouch);
    vec![
        ratio(
            "cold load: seconds / those of bare direct reads",
            over(resident, limit_seconds(rows)),
            AtMost,
            1.05,
        ),
        ratio("cold load, owned: CPU-s/GB", cpu(Role::Auto), AtMost, 0.12),
        ratio("cold load, streamed: CPU-s/GB", cpu(Role::Streamed), AtMost, 0.12),
        ratio("cold load, mapped: CPU-s/GB", cpu(Role::Mapped), AtMost, 0.12),
        ratio(
            "warm load, mapped: seconds / those of mmap and touch",
            over(touch, warm(Role::Mapped)),
            AtMost,
            1.1,
        ),
        ratio(
            "warm load, owned: speed / that of memcpy",
            over(warm(Role::Auto), memcpy),
            AtLeast,
            0.9,
        ),
        ratio(
            "under a cap: MiB of peak memory above it",
            excess,
            AtMost,
            (OVERHEAD_BYTES >> 20) as f64,
        ),
        ratio(
            "under a cap: seconds / those without",
            over(cold(Role::Capped), cold(Role::Auto)),
            AtMost,
            1.05,
        ),
    ]
}

/// The speed of the fastest row in `role`, in GB/s.
pub fn fastest(rows: &[Row], role: Role) -> Option<f64> {
    let rows = rows.iter().filter(|row| row.role == role);
    rows.filter_map(Row::gigabytes_per_second).reduce(f64::max)
}

/// How long the disk takes for the bytes of a load.
fn limit_seconds(rows: &[Row]) -> Option<f64> {
    let load = rows.iter().find(|row| row.phase == Phase::Cold && !row.runs.is_empty())?;
    let bytes = load.runs.first()?.bytes as f64;
    fastest(rows, Role::Limit).map(|speed| bytes / 1e9 / speed)
}

fn ratio(name: &'static str, figure: Option<f64>, bound: Bound, target: f64) -> Ratio {
    let reached = figure.map(|figure| match bound {
        Bound::AtMost => figure <= target,
        Bound::AtLeast => figure >= target,
    });
    Ratio { name, figure, target, bound, reached }
}

fn over(figure: Option<f64>, by: Option<f64>) -> Option<f64> {
    figure.zip(by).map(|(figure, by)| figure / by)
}

fn least(figures: [Option<f64>; 2]) -> Option<f64> {
    figures.into_iter().flatten().reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::measured;
    use super::*;

    fn figure(ratios: &[Ratio], start: &str) -> (Option<f64>, Option<bool>) {
        let ratio = ratios.iter().find(|ratio| ratio.name.starts_with(start)).unwrap();
        (ratio.figure.map(|figure| (figure * 1000.0).round() / 1000.0), ratio.reached)
    }

    #[test]
    fn figures_are_held_against_the_better_of_their_kind() {
        let rows = [
            measured(Phase::Limit, Role::Limit, &[1.0, 1.1, 1.2], 0.05, 0),
            measured(Phase::Limit, Role::Limit, &[1.0], 0.05, 0),
            measured(Phase::Cold, Role::Direct, &[1.04], 0.2, 0),
            measured(Phase::Cold, Role::Auto, &[1.3], 0.11, 0),
            measured(Phase::Cold, Role::Capped, &[1.4], 0.11, 300 << 20),
            measured(Phase::Warm, Role::Mapped, &[0.2], 0.2, 0),
            measured(Phase::Floor, Role::MmapTouch, &[0.1], 0.1, 0),
            measured(Phase::Warm, Role::Auto, &[0.5], 0.5, 0),
            measured(Phase::Floor, Role::Memcpy, &[0.6], 0.6, 0),
        ];
        let ratios = all(&rows, Some(256 << 20));
        assert_eq!(figure(&ratios, "cold load: sec"), (Some(1.04), Some(true)));
        assert_eq!(figure(&ratios, "cold load, owned"), (Some(0.11), Some(true)));
        assert_eq!(figure(&ratios, "cold load, mapped"), (None, None));
        assert_eq!(figure(&ratios, "warm load, mapped"), (Some(2.0), Some(false)));
        assert_eq!(figure(&ratios, "warm load, owned"), (Some(1.2), Some(true)));
        assert_eq!(figure(&ratios, "under a cap: MiB"), (Some(44.0), Some(true)));
        assert_eq!(figure(&ratios, "under a cap: seconds"), (Some(1.077), Some(false)));
    }
}
