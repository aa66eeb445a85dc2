//! `ringload bench`: measures loads on this machine and compares them with its disk and memory.
//!
//! ```text
//! LOCATION, or a synthetic checkpoint (model), which is kept for later runs (synthetic)
//!     |
//! rows: methods to read the same bytes    each run is a separate process: a load, or a reference
//!     |                                   measurement (reference, bare, fio)
//!     |   each turn runs every row once: A B C A B C ...; before each run the page cache is
//!     |   emptied or filled, and its state is checked (files)
//!     v
//! medians -> table (report)
//! ```
//!
//! Rows take turns because the speed of a machine drifts: rows are compared with runs that were
//! measured within seconds. The limits of the disk are measured in the same turns. Each run gets
//! memory that was in use a moment ago (`settle_memory`), which the kernel only has to zero, and not
//! memory that a hypervisor has to return first.

mod bare;
mod files;
mod fio;
mod model;
pub mod reference;
mod report;
mod rows;
mod synthetic;

use crate::failure::{Failure, Outcome};
use crate::format;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use report::{Machine, Report};
use ringload::internals::{PAGE_BYTES, Ring};
use ringload::{Error, ErrorKind, Loader, Location, LocationText};
use ringload_measure::page_cache::CacheState;
use ringload_measure::system;
use rows::Row;
use std::ffi::OsString;
use std::path::PathBuf;

/// The memory limit of the limited load, unless a tensor is larger.
const CAP_BYTES: u64 = 256 << 20;

/// Measure loads on this machine and compare them with its disk and memory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checkpoint to measure [default: a synthetic checkpoint, which is written and kept]
    #[arg(value_name = "LOCATION")]
    location: Option<OsString>,
    /// The approximate size of the synthetic checkpoint, such as 4GiB
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = format::parse_size, allow_hyphen_values = true, conflicts_with = "location")]
    size: u64,
    /// The directory of the synthetic checkpoint [default: cargo's target directory, or the temporary directory]
    #[arg(long, value_name = "DIR", conflicts_with = "location")]
    dir: Option<PathBuf>,
    /// How often each method is measured
    #[arg(long, value_name = "N", default_value_t = 3, allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When the checkpoint cannot be written, opened or loaded, or the answer cannot be written.
pub fn run(args: Args) -> Outcome {
    let report = measure(&args)?;
    if args.json { output::print_json(&report) } else { output::print(|out| report.write(out)) }
}

fn measure(args: &Args) -> Outcome<Report> {
    let location = match &args.location {
        Some(location) => location.clone(),
        None => synthetic_checkpoint(args)?.into_os_string(),
    };
    let parsed = Location::parse_os(&location).map_err(Failure::Usage)?;
    let checkpoint = Loader::from_env().open(&parsed)?;
    let (files, file_bytes) = files::of(&checkpoint)?;
    let lengths = checkpoint.tensors().iter().map(|tensor| tensor.len_bytes());
    let largest_tensor_bytes = lengths.max().unwrap_or(0);
    let bytes = checkpoint.data_bytes();
    if bytes == 0 {
        let sentence = format!("{} has no bytes to measure", location.display());
        return Err(Error::new(ErrorKind::InvalidInput, sentence).into());
    }
    let cap = CAP_BYTES.max(largest_tensor_bytes);
    let cap_bytes = (cap < bytes).then_some(cap);
    let workload =
        rows::Workload { location: &location, files: &files, bytes: file_bytes, cap_bytes };
    let mut rows = rows::all(&workload, fio::is_installed());
    let mut skipped = Vec::new();
    if cap_bytes.is_none() {
        skipped.push(format!(
            "a memory limit: the checkpoint is not larger than {}",
            format::size(cap)
        ));
    }
    take_turns(&mut rows, &workload, args.runs, &mut skipped)?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::of(&files[0]),
        checkpoint: report::CheckpointInfo {
            location: LocationText::from(&parsed),
            synthetic: args.location.is_none(),
            bytes,
            shards: checkpoint.shards().len(),
            tensors: checkpoint.tensors().len(),
            largest_tensor_bytes,
        },
        runs: args.runs as usize,
        rows,
        skipped,
    })
}

fn synthetic_checkpoint(args: &Args) -> Outcome<PathBuf> {
    let base = match &args.dir {
        Some(directory) => directory.clone(),
        None => {
            let executable = std::env::current_exe();
            let cannot = |error| Error::from_io("find this executable", error);
            synthetic::default_base(&executable.map_err(cannot)?)
        }
    };
    let bar = bar("writing a checkpoint {bar:20} {percent} %", 0);
    let written = synthetic::checkpoint(&base, args.size, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    written
}

/// Measures every row once a turn: first all turns of cold rows, then those of warm rows.
fn take_turns(
    rows: &mut [Row],
    workload: &rows::Workload,
    turns: u32,
    skipped: &mut Vec<String>,
) -> Outcome {
    let bar = bar("{bar:20} {pos}/{len}  {msg}", rows.len() as u64 * u64::from(turns));
    for state in [CacheState::Cold, CacheState::Warm] {
        let mut rows: Vec<_> = rows.iter_mut().filter(|row| row.phase.state() == state).collect();
        rows.retain(|row| fits_memory(row, skipped));
        'turns: for _ in 0..turns {
            for row in &mut rows {
                bar.set_message(format!("{}: {}", row.phase.as_str(), row.name));
                if let Some(why) = files::prepare(state, workload.files, workload.bytes)? {
                    skipped.push(format!("{} loads: {why}", state.as_str()));
                    break 'turns;
                }
                settle_memory(workload.bytes);
                row.measure()?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Allocates and frees as much memory as the checkpoint takes.
///
/// A virtual machine may return memory that was free for some seconds to its host (free page
/// reporting). The next process that touches it pays two to three times the cost of zeroing. Which
/// row that is would depend on what ran before it.
fn settle_memory(bytes: u64) {
    let bytes = bytes + bytes / 8;
    let fits = system::available_bytes().is_none_or(|available| bytes < available);
    if let (true, Ok(bytes)) = (fits, usize::try_from(bytes))
        && let Ok(ring) = Ring::new(bytes, PAGE_BYTES)
    {
        // If it fails, a row may be slower but not wrong.
        let _ = ring.populate(bytes, system::cores());
    }
}

/// Whether there is enough memory for `row`; if not, adds the reason to `skipped`.
fn fits_memory(row: &Row, skipped: &mut Vec<String>) -> bool {
    let Some(available) = system::available_bytes().filter(|&bytes| bytes < row.needs_bytes) else {
        return true;
    };
    skipped.push(format!(
        "{}, {}: needs {} of memory, {} available",
        row.phase.as_str(),
        row.name,
        format::size(row.needs_bytes),
        format::size(available)
    ));
    false
}

/// A progress bar on standard error, hidden if that is not a terminal.
fn bar(template: &str, len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
