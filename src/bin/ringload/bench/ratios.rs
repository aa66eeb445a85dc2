//! The ratios between rows, and their targets.
//!
//! A ratio is computed within each turn, against the best row of its kind in that turn, and the
//! median of the turns counts. A temporary slowdown of the machine therefore affects both sides.
//!
//! The limit of the disk is the better result of fio or, if fio is not installed, of the bare reads.
//!
//! Some figures have no target and explain why another target was missed. A disk, above all a
//! virtual one, may be slower when it reads into much memory than into a few buffers that stay in
//! the caches of the CPU. Therefore bare reads into memory that is kept are measured too. Faulting
//! in and zeroing fresh memory is CPU time that no load into new memory can avoid, so the CPU time
//! beyond it is shown.

use super::rows::{Phase, Role, Row};
use ringload_measure::figures::Figures;
use ringload_measure::stats::{Bound, median, ratios};
use serde::Serialize;

const MEBIBYTE: f64 = 1_048_576.0;
/// The memory beyond the limit that the program, headers and queues may use, in MiB.
const OVERHEAD_MEBIBYTES: f64 = 64.0;

/// A figure and its target.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub name: &'static str,
    /// `None` if a row that it needs was not measured.
    pub figure: Option<f64>,
    /// The figure of each turn, if it has one per turn.
    pub turns: Vec<f64>,
    /// `None` for a figure that only explains others.
    pub target: Option<f64>,
    pub bound: Bound,
    pub reached: Option<bool>,
}

/// All ratios for `rows`, of which one ran under the memory limit `cap_bytes`.
pub fn all(rows: &[Row], cap_bytes: Option<u64>) -> Vec<Ratio> {
    use Bound::{AtLeast, AtMost};
    let cost = |phase, roles: &[Role]| per_turn(rows, phase, roles, seconds_per_gigabyte);
    let cpu = |phase, role| per_turn(rows, phase, &[role], Figures::cpu_seconds_per_gigabyte);
    let cold = |role| cost(Phase::Cold, &[role]);
    let owned = cold(Role::Auto);
    let fio = cost(Phase::Limit, &[Role::Fio]);
    let bare = cost(Phase::Limit, &[Role::Bare]);
    let (limit, owned_name, streamed_name) = if fio.is_empty() {
        (&bare, "cold, owned: seconds / bare reads", "cold, streamed: seconds / bare reads")
    } else {
        (&fio, "cold, owned: seconds / fio", "cold, streamed: seconds / fio")
    };
    let kept = cost(Phase::Limit, &[Role::BareKept]);
    let owned_cpu = cpu(Phase::Cold, Role::Auto);
    let fresh_cpu = cpu(Phase::Floor, Role::FreshMemory);
    let beyond = std::iter::zip(&owned_cpu, &fresh_cpu).map(|(load, fresh)| load - fresh).collect();
    let memcpy = cost(Phase::Floor, &[Role::Memcpy]);
    let touch = cost(Phase::Floor, &[Role::MmapTouch]);
    let warm = |role| cost(Phase::Warm, &[role]);
    let capped = rows.iter().find(|row| row.role == Role::Capped).and_then(Row::peak_bytes);
    // The highest peak of all turns.
    let excess = capped.zip(cap_bytes).map(|(peak, cap)| (peak as f64 - cap as f64) / MEBIBYTE);
    let excess = excess.into_iter().collect();
    let at_most = |target| (AtMost, Some(target));
    let explains = (AtMost, None);
    let streamed_cpu = cpu(Phase::Cold, Role::Streamed);
    let figures = [
        (owned_name, ratios(&owned, limit), at_most(1.05)),
        (streamed_name, ratios(&cold(Role::Streamed), limit), at_most(1.05)),
        ("cold, owned: seconds / bare reads, kept", ratios(&owned, &kept), explains),
        ("cold, owned: seconds / bare reads, reused", ratios(&owned, &bare), explains),
        ("cold, owned: CPU-s/GB", owned_cpu, at_most(0.12)),
        ("cold, owned: CPU-s/GB beyond fresh memory", beyond, explains),
        ("cold, streamed: CPU-s/GB", streamed_cpu, at_most(0.12)),
        ("cold, mapped: CPU-s/GB", cpu(Phase::Cold, Role::Mapped), at_most(0.12)),
        (
            "warm, mapped: seconds / mmap and touch",
            ratios(&warm(Role::Mapped), &touch),
            at_most(1.1),
        ),
        ("warm, owned: speed / memcpy", ratios(&memcpy, &warm(Role::Auto)), (AtLeast, Some(0.9))),
        ("under a cap: MiB of peak memory above it", excess, at_most(OVERHEAD_MEBIBYTES)),
        (
            "under a cap: seconds / no cap",
            ratios(&cold(Role::Capped), &cold(Role::Streamed)),
            at_most(1.05),
        ),
    ];
    figures.map(|(name, turns, (bound, target))| ratio(name, turns, bound, target)).into()
}

/// The speed of the fastest row with `role`, in GB/s.
pub fn fastest(rows: &[Row], role: Role) -> Option<f64> {
    let rows = rows.iter().filter(|row| row.role == role);
    rows.filter_map(Row::gigabytes_per_second).reduce(f64::max)
}

/// The lowest `figure` of each turn among the rows with one of `roles`.
fn per_turn(
    rows: &[Row],
    phase: Phase,
    roles: &[Role],
    figure: impl Fn(&Figures) -> f64,
) -> Vec<f64> {
    let rows: Vec<_> =
        rows.iter().filter(|row| row.phase == phase && roles.contains(&row.role)).collect();
    let of_turn = |turn| rows.iter().filter_map(move |row| row.runs.get(turn)).map(&figure);
    (0..).map_while(|turn| of_turn(turn).reduce(f64::min)).collect()
}

fn seconds_per_gigabyte(run: &Figures) -> f64 {
    run.seconds / run.gigabytes()
}

fn ratio(name: &'static str, turns: Vec<f64>, bound: Bound, target: Option<f64>) -> Ratio {
    let figure = median(&turns);
    let reached = figure.zip(target).map(|(figure, target)| bound.is_met(figure, target));
    Ratio { name, figure, turns, target, bound, reached }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::measured;
    use super::*;

    fn figure(ratios: &[Ratio], name: &str) -> (Option<f64>, Option<bool>) {
        let ratio = ratios.iter().find(|ratio| ratio.name == name).unwrap();
        (ratio.figure.map(|figure| (figure * 1000.0).round() / 1000.0), ratio.reached)
    }

    #[test]
    fn figures_are_held_against_the_better_of_their_kind() {
        let rows = [
            measured(Phase::Limit, Role::Bare, &[1.0, 1.1, 1.2], 0.05, 0),
            measured(Phase::Limit, Role::Bare, &[1.0], 0.05, 0),
            measured(Phase::Cold, Role::Streamed, &[1.04], 0.2, 0),
            measured(Phase::Cold, Role::Auto, &[1.3], 0.11, 0),
            measured(Phase::Cold, Role::Capped, &[1.4], 0.11, 300 << 20),
            measured(Phase::Warm, Role::Mapped, &[0.2], 0.2, 0),
            measured(Phase::Floor, Role::MmapTouch, &[0.1], 0.1, 0),
            measured(Phase::Warm, Role::Auto, &[0.5], 0.5, 0),
            measured(Phase::Floor, Role::Memcpy, &[0.6], 0.6, 0),
        ];
        let found = all(&rows, Some(256 << 20));
        let reached = |figure, reached| (Some(figure), Some(reached));
        let of = |name| figure(&found, name);
        assert_eq!(of("cold, owned: seconds / bare reads"), reached(1.3, false));
        assert_eq!(of("cold, owned: CPU-s/GB"), reached(0.11, true));
        assert_eq!(of("cold, mapped: CPU-s/GB"), (None, None));
        assert_eq!(of("warm, mapped: seconds / mmap and touch"), reached(2.0, false));
        assert_eq!(of("warm, owned: speed / memcpy"), reached(1.2, true));
        assert_eq!(of("under a cap: MiB of peak memory above it"), reached(44.0, true));
        assert_eq!(of("under a cap: seconds / no cap"), reached(1.346, false));
    }

    #[test]
    fn a_slow_turn_slows_both_sides() {
        let rows = [
            measured(Phase::Limit, Role::Bare, &[1.0, 4.0, 1.0], 0.0, 0),
            measured(Phase::Cold, Role::Auto, &[1.0, 4.0, 8.0], 0.0, 0),
        ];
        let found = all(&rows, None);
        let name = "cold, owned: seconds / bare reads";
        assert_eq!(figure(&found, name), (Some(1.0), Some(true)));
    }
}
