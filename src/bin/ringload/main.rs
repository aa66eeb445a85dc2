//! The `ringload` command: loads, lists and checks checkpoints from the shell.
//!
//! Each subcommand has a file or folder with its `Args` and a `run`; shared code is in [`format`],
//! [`output`] and [`locations`]. Results go to standard output. Progress, the log and errors go to
//! standard error, so that the output can always be piped.
//!
//! Exit status: 0 for success, 1 if the command failed, 2 if its arguments are wrong, whatever files
//! and servers there are. A reader of standard output that ends early (`| head -1`) is a success.

mod bench;
mod cache;
mod doctor;
mod failure;
mod fetch;
mod format;
mod inspect;
mod load;
mod locations;
#[cfg(test)]
mod manual;
mod options;
mod output;
mod streams;
mod sum;

use clap::{Parser, Subcommand};
use failure::Outcome;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use streams::LossyStderr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Loads safetensors checkpoints as fast as the hardware allows, under a hard memory limit.
#[derive(Debug, Parser)]
#[command(name = "ringload", version, arg_required_else_help = true)]
struct Cli {
    /// Log more to standard error (-v, -vv, -vvv); RINGLOAD_LOG takes a filter instead.
    #[arg(short, long, global = true, display_order = 1000, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(load::Args),
    Fetch(fetch::Args),
    Inspect(inspect::Args),
    Sum(sum::Args),
    Cache(cache::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    BenchReference(bench::reference::Args),
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Command::Load(args) => load::run(args),
            Command::Fetch(args) => fetch::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Sum(args) => sum::run(args),
            Command::Cache(args) => cache::run(args),
            Command::Doctor(args) => doctor::run(args),
            Command::Bench(args) => bench::run(args),
            Command::BenchReference(args) => bench::reference::run(args),
        }
    }
}

fn main() -> ExitCode {
    streams::survive_file_limits();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed, the failure cannot be reported.
            let _ = writeln!(io::stderr(), "{}", failure.report());
            failure.exit_code()
        }
    }
}

fn run() -> Outcome {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(wrong) if wrong.use_stderr() => wrong.exit(),
        Err(answer) => {
            streams::check_output()?;
            return output::print_help(&answer);
        }
    };
    start_log(cli.verbose);
    streams::share_one_arena_if_limited();
    streams::check_output()?;
    cli.command.run()
}

/// Sends the log to standard error, filtered by `RINGLOAD_LOG` or by the level of `-v`.
fn start_log(verbose: u8) {
    let filter = EnvFilter::builder()
        .with_env_var("RINGLOAD_LOG")
        .with_default_directive(log_level(verbose).into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LossyStderr::default)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// The log level for `-v` given `verbose` times.
fn log_level(verbose: u8) -> LevelFilter {
    match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_log_gets_louder() {
        assert!([0, 1, 2, 3].map(log_level).is_sorted());
        assert_eq!(log_level(u8::MAX), LevelFilter::TRACE);
    }
}
