//! `ringload-perf simulate`: predicts the load time on other machines, and its bottleneck.
//!
//! ```text
//! constants (measured here, published, assumed)  +  scenario (model, source, nodes, processes)
//!        |                                              |
//!        +------------------->  demand  <---------------+      the work of each stage
//!                                  |
//!              bounds (closed formula)   pipeline (events)     no time is below a bound
//!                                  |
//!                   forecast: time, bottleneck, shares, sensitivity
//!
//! records  ->  constants without the case  ->  forecast of the case  ->  compared with the case
//! ```
//!
//! `perf/PLAN.md` describes the results. Its tables are printed by this command; a test compares them.

mod check;
mod constants;
mod forecast;
mod measured;
mod origins;
mod pipeline;
mod plan;
mod scenario;
mod stages;
mod table;

#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod tests;

use crate::blocks::{self, Block};
use crate::records::Record;
use anyhow::{Context, Result, bail};
use check::check;
use constants::Constants;
use forecast::Forecast;
use scenario::{Destination, Preset, Scenario, Share, Source};
use std::path::{Path, PathBuf};

/// The maximum number of slots; larger rings take too long to simulate.
const SLOTS_MOST: usize = 1 << 18;

/// Predicts load times by a simulation, on this machine and on larger ones
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The machine and the load to begin with
    #[arg(value_enum, default_value = "this-machine")]
    pub preset: Preset,
    /// Where the bytes come from
    #[arg(long, value_enum)]
    pub source: Option<Source>,
    /// What each process of a node reads
    #[arg(long, value_enum)]
    pub share: Option<Share>,
    /// Load into new host memory that is kept, instead of GPUs or a ring
    #[arg(long)]
    pub resident: bool,
    /// Check every object against its store's checksum
    #[arg(long)]
    pub verify: bool,
    /// Fill the local file cache during the load
    #[arg(long)]
    pub fills_cache: bool,
    /// The model's size in GB (10^9 bytes)
    #[arg(long)]
    pub model_gb: Option<f64>,
    /// Nodes that start at once
    #[arg(long)]
    pub nodes: Option<u32>,
    /// Processes of a node, each with a ring and engines of its own
    #[arg(long)]
    pub processes: Option<u16>,
    /// The ring of each process
    #[arg(long)]
    pub ring_mib: Option<f64>,
    /// The local disks of a node, in GB/s
    #[arg(long)]
    pub storage_gb_per_second: Option<f64>,
    /// The network of a node, in Gb/s
    #[arg(long)]
    pub network_gigabits_per_second: Option<f64>,
    /// Any constant by its path, as hardware.cores=64; may be repeated
    #[arg(long = "set", value_name = "CONSTANT=VALUE")]
    pub set: Vec<String>,
    /// Use the measurements of this file of records
    #[arg(long, value_name = "FILE")]
    pub records: Option<PathBuf>,
    /// Predict what the records measured, and say how far off that is
    #[arg(long, requires = "records")]
    pub check: bool,
    /// List the constants, their values and where they are from
    #[arg(long)]
    pub constants: bool,
    /// Print the tables of perf/PLAN.md
    #[arg(long)]
    pub plan: bool,
    /// With --plan or --check: replace the blocks of this file instead of printing them
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

/// Does what `args` say, and prints it.
///
/// # Errors
/// When the records cannot be read, or a constant is none.
pub fn run(args: &Args) -> Result<()> {
    let Some(blocks) = blocks(args)? else {
        if args.into.is_some() {
            bail!("--into goes with --plan or --check; leave it out, or add one of them");
        }
        print!("{}", text(args)?);
        return Ok(());
    };
    let Some(file) = &args.into else {
        blocks.iter().for_each(|(name, text)| print!("{name}:\n\n{text}\n"));
        return Ok(());
    };
    blocks::rewrite(file, &blocks)
}

/// What goes between markers; none where that was not asked for.
fn blocks(args: &Args) -> Result<Option<Vec<Block>>> {
    if args.plan {
        return plan::blocks().map(Some);
    }
    if !args.check {
        return Ok(None);
    }
    let records = args.read_records()?;
    let constants = args.constants_of(&records)?;
    Ok(Some(vec![("check", table::checked(&check(&records, &constants)))]))
}

fn text(args: &Args) -> Result<String> {
    let constants = args.constants_of(&args.read_records()?)?;
    if args.constants {
        return origins::table(&constants);
    }
    let scenario = args.scenario(&constants)?;
    let forecast = Forecast::of(&constants, &scenario);
    let elasticities = forecast::elasticities(&constants, &scenario)?;
    Ok(table::forecast(&forecast, &elasticities))
}

fn read_records(path: &Path) -> Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the records {}; check the path", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| {
                let number = number + 1;
                format!("{}:{number} is no record of this version; measure again", path.display())
            })
        })
        .collect()
}

impl Args {
    fn constants_of(&self, records: &[Record]) -> Result<Constants> {
        let preset = self.preset.constants();
        let mut constants = match self.preset {
            Preset::ThisMachine => measured::from_records(records),
            // The costs of the software are measured here; the hardware is the preset's.
            _ => Constants { costs: measured::over(records, &preset).costs, ..preset },
        };
        let named = [
            ("design.ring_bytes", self.ring_mib.map(|mib| mib * 1_048_576.0)),
            ("hardware.disk_gb_per_second", self.storage_gb_per_second),
            (
                "hardware.network_gb_per_second",
                self.network_gigabits_per_second.map(|gigabits| gigabits / 8.0),
            ),
        ];
        for (path, value) in named {
            if let Some(value) = value {
                constants = forecast::with(&constants, path, value)?;
            }
        }
        for pair in &self.set {
            let (path, value) = pair
                .split_once('=')
                .with_context(|| format!("--set {pair}: write CONSTANT=VALUE"))?;
            let value =
                value.parse().with_context(|| format!("--set {pair}: {value} is no number"))?;
            constants = forecast::with(&constants, path, value)?;
        }
        Ok(constants)
    }

    fn scenario(&self, constants: &Constants) -> Result<Scenario> {
        let mut scenario = self.preset.scenario();
        if let Some(gb) = self.model_gb {
            if !(gb.is_finite() && gb > 0.0) {
                bail!("--model-gb {gb}: use a number above 0");
            }
            scenario.model_bytes = gb * 1e9;
        }
        scenario.source = self.source.unwrap_or(scenario.source);
        scenario.share = self.share.unwrap_or(scenario.share);
        scenario.nodes = self.nodes.map_or(scenario.nodes, |nodes| f64::from(nodes.max(1)));
        scenario.processes =
            self.processes.map_or(scenario.processes, |processes| usize::from(processes.max(1)));
        scenario.verify |= self.verify;
        scenario.fills_cache |= self.fills_cache;
        if self.resident {
            scenario.destination = Destination::Resident;
        }
        if stages::Demand::of(constants, &scenario).slots.unwrap_or(0) > SLOTS_MOST {
            bail!("that is more slots than can be simulated; use a smaller ring or larger reads");
        }
        Ok(scenario)
    }

    fn read_records(&self) -> Result<Vec<Record>> {
        Ok(self.records.as_deref().map(read_records).transpose()?.unwrap_or_default())
    }
}
