//! Whole processes that load the large checkpoint, as users see them. There is no target.

use super::{Large, Part};
use crate::children::{Of, Run, run_load};
use crate::report::Report;
use anyhow::Result;
use ringload::MemoryLimit;

pub fn measure(part: &Part<'_>, large: &Large, report: &mut Report) -> Result<()> {
    let mut runs = Vec::new();
    for _ in part.clock.take() {
        runs.push(run_load(part.places, MemoryLimit::Unlimited, &large.tmpfs.files)?);
    }
    let figures: [(&str, &str, Of); 3] = [
        ("seconds from its start to the last tensor", "s", Run::seconds),
        ("peak of host memory, the driver's included", "MiB", |run| {
            run.figures.peak_rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20))
        }),
        ("CPU time, making the context included", "CPU-s/GB", |run| {
            run.figures.cpu_seconds_per_gigabyte()
        }),
    ];
    let what = super::size(large.tmpfs.bytes());
    for (name, unit, figure) in figures {
        let turns: Vec<_> = runs.iter().map(figure).collect();
        report.explain(format!("a process that loads {what} from tmpfs: {name}"), unit, &turns);
    }
    Ok(())
}
