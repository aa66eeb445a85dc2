//! `ringload-gpu`: checks and measures loads onto a CUDA GPU, on a machine that has one.
//!
//! ```text
//! run = check    the kernels against the library's references, and loads against the files (check)
//!     + figures  the targets, as ratios within turns A B A B ... (figures)
//!       |    GPU: the limits, by the driver's own functions     checkpoints: the loaded files
//!       |    children: measurements that begin with a process     turns: A B A B ...
//!       report -> DIR/gpu.md, DIR/gpu.json, rewritten after each part; exit status 1 if a check
//!                 fails or a target is missed
//! ```
//!
//! `perf/gpu.sh` packs it with its dependencies and runs it.

mod check;
mod checkpoints;
mod children;
mod figures;
mod gpu;
mod machine;
mod places;
mod report;
mod turns;

use anyhow::{Context, Result};
use clap::Parser;
use report::{Report, are_good};
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks and measures loads onto a CUDA GPU.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Check the kernels and loads, then measure
    #[command(args_override_self = true)]
    Run(RunArgs),
    /// Check the kernels and loads
    Check {
        #[command(flatten)]
        places: places::PlacesArgs,
        #[command(flatten)]
        check: check::CheckArgs,
    },
    /// Print the GPU and the machine
    Gpu(places::PlacesArgs),
    /// Run one task in a separate process
    #[command(subcommand, hide = true)]
    Child(children::Command),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    places: places::PlacesArgs,
    #[command(flatten)]
    check: check::CheckArgs,
    #[command(flatten)]
    figures: figures::FiguresArgs,
    /// Directory for gpu.md and gpu.json
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Name of the machine, e.g. 'one H200, 16 cores'
    #[arg(long, value_name = "TEXT")]
    machine: Option<String>,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(args) => run(&args),
        Command::Check { places, check } => check_alone(&places, &check),
        Command::Gpu(places) => machine::Machine::of(&places, None).map(|machine| {
            print!("{}", machine.table());
            true
        }),
        Command::Child(command) => children::run(command).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all checks passed and all targets were reached.
fn run(args: &RunArgs) -> Result<bool> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    let places = places::Places::new(&args.places)?;
    let gpu = gpu::Gpu::open(args.places.device)?;
    let mut report = Report::new(machine::Machine::of(&args.places, args.machine.clone())?);
    report.checks = check::all(&gpu, &places, &args.check);
    report.write(&args.out)?;
    if are_good(&report.checks) {
        figures::all(&gpu, &places, &args.figures, &mut report, &args.out)?;
    } else {
        report.skip("the figures: a check failed, so what they would measure is wrong");
    }
    report.write(&args.out)?;
    print!("{}", report.markdown());
    Ok(report.is_good())
}

fn check_alone(places: &places::PlacesArgs, args: &check::CheckArgs) -> Result<bool> {
    let gpu = gpu::Gpu::open(places.device)?;
    let checks = check::all(&gpu, &places::Places::new(places)?, args);
    print!("{}", report::table_of_checks(&checks));
    Ok(are_good(&checks))
}
