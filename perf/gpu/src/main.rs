//! `ringload-gpu`: checks and measures loads onto a CUDA GPU, on a machine that has one.
//!
//! ```text
//! run = steps (steps, run), each a process with a time limit; some are scripts in Python
//!     |  right-...  the kernels against the library's references, and loads against the files (check)
//!     |  figures    the targets, as ratios within turns A B A B ... (figures)
//!     |    GPU: the limits, by the driver's own functions     checkpoints: the loaded files
//!     |    children: measurements that begin with a process     turns: A B A B ...
//!     records -> results -> DIR/gpu.jsonl as they come, DIR/gpu.md, DIR/gpu.json
//! ```
//!
//! The exit status of `run` is 1 if a check fails, a target is missed or a step is not finished.
//! `perf/gpu.sh` packs the program with its dependencies and runs it.

mod check;
mod checkpoints;
mod children;
mod figures;
mod gpu;
mod machine;
mod places;
mod record;
mod results;
mod run;
mod steps;
mod turns;

use anyhow::Result;
use clap::Parser;
use record::Recorder;
use results::{Results, table_of_checks};
use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

/// Checks and measures loads onto a CUDA GPU.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Check the kernels and loads, and measure, step by step
    #[command(args_override_self = true)]
    Run(run::RunArgs),
    /// Write the tables of a run again
    Report {
        /// The directory with gpu.jsonl
        directory: PathBuf,
    },
    /// Check the kernels and loads
    Check {
        #[command(flatten)]
        places: places::PlacesArgs,
        #[command(flatten)]
        check: check::CheckArgs,
    },
    /// Print the GPU and the machine
    Gpu(places::PlacesArgs),
    /// Run one step in this process
    #[command(hide = true, args_override_self = true)]
    Step {
        name: String,
        #[command(flatten)]
        args: steps::StepArgs,
        /// No turn begins after so many seconds
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
    },
    /// Run one task in a separate process
    #[command(subcommand, hide = true)]
    Child(children::Command),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(args) => run::run(&args),
        Command::Report { directory } => run::report(&directory).map(|()| true),
        Command::Check { places, check } => check_alone(&places, &check),
        Command::Gpu(places) => machine::Machine::of(&places, None).map(|machine| {
            print!("{}", machine.table());
            true
        }),
        Command::Step { name, args, seconds } => {
            let mut recorder = Recorder::printing(args.figures.enough());
            steps::run(&name, &args, seconds, &mut recorder).map(|()| true)
        }
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

fn check_alone(places: &places::PlacesArgs, args: &check::CheckArgs) -> Result<bool> {
    let gpu = gpu::Gpu::open(places.device)?;
    let records = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&records);
    let mut recorder = Recorder::new(1, move |record| kept.borrow_mut().push(record));
    check::kernels(&gpu, args, &mut recorder);
    check::loads(&gpu, &places::Places::new(places)?, args, &mut recorder);
    let mut results = Results::default();
    for record in records.take() {
        results.add("check", record)?;
    }
    print!("{}", table_of_checks(&results.checks()));
    Ok(results.is_good())
}
