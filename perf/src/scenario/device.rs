//! Loads onto a GPU, if there is one: `perf/gpu.sh`, whose figures become targets.

use crate::lab::Lab;
use crate::peers::Peers;
use crate::records::Bound;
use crate::targets;
use anyhow::{Context, Result};
use ringload_measure::process::Invocation;
use ringload_measure::stats;
use serde::Deserialize;

/// Parts of the names of gpu.sh's figures, and their targets.
const TARGETS: [(&str, &str); 5] = [
    ("/ pinned memory to the GPU", "gpu.memory"),
    ("from the disk / direct reads", "gpu.disk"),
    ("process start to last tensor / to plain copy", "gpu.adapter"),
    ("/ as one tensor", "gpu.tiny"),
    ("/ copy within the GPU", "gpu.kernels"),
];

#[derive(Debug, Deserialize)]
struct GpuResults {
    figures: Vec<Figure>,
    skipped: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Figure {
    name: String,
    figure: Option<f64>,
    turns: Vec<f64>,
    target: Option<serde_json::Value>,
}

pub fn run(lab: &mut Lab, _: &Peers) -> Result<()> {
    let gpu = lab.tools.doctor()?.remove("CUDA").unwrap_or_default();
    if gpu.is_empty() || gpu.starts_with("no ") {
        return lab.skip("device", "all device paths", &gpu);
    }
    let folder = lab.tools.keep.join("gpu");
    let pack = Invocation::new(lab.tools.root.join("perf/gpu.sh")).args(["pack", "--to"]);
    pack.arg(&folder).run()?;
    let run = Invocation::new(folder.join("gpu.sh")).args(["run", "--out"]).arg(&folder);
    // The script also fails for a missed target; the figures show which.
    let ended = run.run();
    let Ok(json) = std::fs::read(folder.join("gpu.json")) else { return Ok(ended.map(drop)?) };
    let results: GpuResults =
        serde_json::from_slice(&json).context("the figures of perf/gpu.sh")?;
    for why in &results.skipped {
        lab.skip("device", "a part of perf/gpu.sh", why)?;
    }
    for (part, id) in TARGETS {
        let judged =
            results.figures.iter().filter(|one| one.target.is_some() && one.name.contains(part));
        let Some((figure, worst)) = worst(id, judged) else { continue };
        let interval = stats::estimate(&worst.turns).map(|it| (it.low, it.high));
        lab.target(id, figure, interval, Some(worst.name.clone()))?;
    }
    Ok(())
}

/// Of several figures for a target, the one that is farthest from reaching it.
fn worst<'a>(id: &str, figures: impl Iterator<Item = &'a Figure>) -> Option<(f64, &'a Figure)> {
    let measured = figures.filter_map(|one| Some((one.figure?, one)));
    let by_figure = |one: &(f64, &Figure), other: &(f64, &Figure)| one.0.total_cmp(&other.0);
    match targets::spec(id)?.bound {
        Bound::AtLeast => measured.min_by(by_figure),
        Bound::AtMost => measured.max_by(by_figure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_counts() {
        let figure =
            |name: &str, figure| Figure { name: name.into(), figure, turns: vec![], target: None };
        let figures = [figure("a", Some(0.4)), figure("b", Some(0.6)), figure("c", None)];
        assert_eq!(worst("gpu.kernels", figures.iter()).unwrap().1.name, "a");
        assert_eq!(worst("gpu.tiny", figures.iter()).unwrap().1.name, "b");
        assert!(TARGETS.iter().all(|(_, id)| targets::spec(id).is_some()));
    }
}
