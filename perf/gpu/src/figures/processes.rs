//! Whole processes that load the large checkpoint, as users see them. There is no target.

use super::{Large, Part};
use crate::children::{Of, run_load};
use crate::report::Report;
use crate::turns::Samples;
use ringload::{MemoryLimit, Result};

pub fn measure(part: &Part<'_>, large: &Large, report: &mut Report) -> Result<()> {
    let mut runs = Vec::new();
    for turn in part.clock.take() {
        let run = run_load(part.places, MemoryLimit::Unlimited, &large.tmpfs.files)?;
        if !turn.warms_up {
            runs.push(run);
        }
    }
    let figures: [(&str, &str, Of); 3] = [
        ("seconds from its start to the last tensor", "s", |run| run.seconds),
        ("peak of host memory, the driver's included", "MiB", |run| {
            run.peak_rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20))
        }),
        ("CPU time, making the context included", "CPU-s/GB", |run| {
            run.cpu_seconds / (run.bytes as f64 / 1e9)
        }),
    ];
    let what = super::size(large.tmpfs.bytes());
    for (name, unit, figure) in figures {
        let samples = Samples(runs.iter().map(figure).collect());
        report.explain(format!("a process that loads {what} from tmpfs: {name}"), unit, &samples);
    }
    Ok(())
}
