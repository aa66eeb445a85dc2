//! `ringload-perf simulate`: predicts the time of a load on machines that were not available.
//!
//! ```text
//! constants (measured, published, assumed, design)  +  load (model, source, nodes, processes)
//!        |                                               |
//!        +--------------------->  demand  <--------------+      the work of each stage
//!                                    |
//!                bounds (closed formula)   pipeline (events)     no time is below a bound
//!                                    |
//!                     forecast: time, bottleneck, stages
//! ```
//!
//! `perf/PLAN.md` describes the results and the decisions that rest on them. Its tables are written by
//! this command, and a test compares them.

mod constants;
mod forecast;
mod load;
mod pipeline;
mod plan;
mod stages;

#[cfg(test)]
mod tests;

use crate::blocks;
use anyhow::{Context, Result, bail};
use constants::Constants;
use forecast::Forecast;
use load::{Load, Preset, Share, Source};
use ringload_measure::table;
use std::path::PathBuf;

/// The maximum number of slots; larger rings take too long to simulate.
const SLOTS_MAX: usize = 1 << 18;

/// Predicts the time of a load by a simulation
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The machine and the load to begin with
    #[arg(value_enum, default_value = "dgx-h200")]
    preset: Preset,
    /// Where the bytes come from
    #[arg(long, value_enum)]
    source: Option<Source>,
    /// What each process of a node reads
    #[arg(long, value_enum)]
    share: Option<Share>,
    /// Processes of a node, each with a ring and engines of its own
    #[arg(long)]
    processes: Option<u16>,
    /// Another value for a constant of perf/PLAN.md, as cores=64; may be repeated
    #[arg(long = "set", value_name = "CONSTANT=VALUE")]
    set: Vec<String>,
    /// Write the tables of this file, perf/PLAN.md, instead
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// Does what `args` say.
///
/// # Errors
/// If a constant is none, the ring is too large, or the file cannot be written.
pub fn run(args: &Args) -> Result<()> {
    if let Some(file) = &args.plan {
        return blocks::rewrite(file, &plan::blocks()?);
    }
    let (constants, load) = (args.constants()?, args.load());
    if stages::Demand::of(&constants, &load).slots > SLOTS_MAX {
        bail!("that is more slots than can be simulated; use a smaller ring or larger reads");
    }
    let forecast = Forecast::of(&constants, &load);
    let (seconds, speed) = (time(forecast.seconds), table::number(forecast.gb_per_second));
    println!("{seconds}, {speed} GB/s a node; limited by: {}\n", forecast.bottleneck);
    let stage = |(stage, seconds): (stages::Stage, f64)| {
        let share = format!("{:.0} %", 100.0 * seconds / forecast.seconds);
        vec![stage.to_owned(), time(seconds), share]
    };
    let stages: Vec<_> = forecast.stages.iter().copied().map(stage).collect();
    print!("{}", table::markdown(&["stage", "needs by itself", "of the time"], &stages));
    Ok(())
}

/// A time in a suitable unit.
fn time(seconds: f64) -> String {
    match seconds {
        ..600.0 => format!("{} s", table::number(seconds)),
        ..7200.0 => format!("{} min", table::number(seconds / 60.0)),
        _ => format!("{} h", table::number(seconds / 3600.0)),
    }
}

impl Args {
    fn constants(&self) -> Result<Constants> {
        let pair = |pair: &String| -> Result<(String, f64)> {
            let (name, value) = pair
                .split_once('=')
                .with_context(|| format!("--set {pair}: write CONSTANT=VALUE"))?;
            let value =
                value.parse().with_context(|| format!("--set {pair}: {value} is no number"))?;
            Ok((name.to_owned(), value))
        };
        let pairs = self.set.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.preset.constants().with(&pairs)
    }

    fn load(&self) -> Load {
        let preset = self.preset.load();
        Load {
            source: self.source.unwrap_or(preset.source),
            share: self.share.unwrap_or(preset.share),
            processes: self.processes.map_or(preset.processes, |count| usize::from(count.max(1))),
            ..preset
        }
    }
}
