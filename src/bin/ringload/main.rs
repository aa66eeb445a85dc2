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
mod hold;
mod inspect;
mod load;
mod locations;
mod locked_memory;
#[cfg(test)]
mod manual;
mod options;
mod output;
mod streams;
mod sum;

use clap::{Parser, Subcommand};
use failure::{Failure, Outcome};
use ringload::internals::{Interface, shown};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use streams::LossyStderr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The variable that has a filter of the log.
const LOG_VARIABLE: &str = "RINGLOAD_LOG";

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
    Hold(hold::Args),
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
            Command::Hold(args) => hold::run(args),
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
    Interface::Command.speak();
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
        // An error of `options`, to which clap adds the usage of the whole program.
        Err(wrong) if wrong.use_stderr() && wrong.context().next().is_none() => {
            let text = wrong.render().to_string();
            let sentence = text.lines().next().unwrap_or_default();
            let sentence = sentence.strip_prefix("error: ").unwrap_or(sentence);
            return Err(Failure::usage(sentence));
        }
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

/// Sends the log to standard error, filtered by `RINGLOAD_LOG` or by the level of `-v`. A value that
/// cannot be used is reported, and no reason to fail.
fn start_log(verbose: u8) {
    let text = std::env::var_os(LOG_VARIABLE).unwrap_or_default();
    let (filter, refused) = match log_filter(&text.to_string_lossy(), verbose) {
        Ok(filter) => (filter, None),
        Err(why) => (level_filter(verbose), Some(why)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LossyStderr::default)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .init();
    if let Some(why) = refused {
        tracing::warn!("{LOG_VARIABLE}={}: {why}", shown(text.to_string_lossy()));
    }
}

/// The filter in `text`, the value of the variable; that of `-v` if it is empty.
///
/// # Errors
/// The reason why the value cannot be used.
fn log_filter(text: &str, verbose: u8) -> Result<EnvFilter, String> {
    // tracing takes a single word for the name of a crate and then logs nothing else.
    let is_usable = |directive: &str| {
        directive.contains('=')
            || directive.starts_with(env!("CARGO_PKG_NAME"))
            || directive.is_empty()
            || directive.parse::<LevelFilter>().is_ok()
    };
    if text.trim().is_empty() {
        return Ok(level_filter(verbose));
    }
    let usual = "use error, warn, info, debug, trace or off, or directives such as ringload=debug";
    if let Some(wrong) = text.split(',').map(str::trim).find(|directive| !is_usable(directive)) {
        return Err(format!("{wrong:?} is not a level; {usual}"));
    }
    let builder = EnvFilter::builder().with_default_directive(log_level(verbose).into());
    builder.parse(text).map_err(|why| format!("{why}; {usual}"))
}

/// The filter for `-v` given `verbose` times.
fn level_filter(verbose: u8) -> EnvFilter {
    EnvFilter::default().add_directive(log_level(verbose).into())
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

    /// `RINGLOAD_LOG=garbage` was a crate's name to tracing: nothing was logged, not even warnings.
    #[test]
    fn a_filter_of_the_log_that_cannot_be_used_is_refused() {
        for usable in ["", "debug", "WARN", "ringload", "ringload=trace,hyper=info", "off", "info,"]
        {
            assert!(log_filter(usable, 0).is_ok(), "{usable}");
        }
        for wrong in ["garbage", "loud", "info,garbage", "a=b=c", "ringload=loud"] {
            let why = log_filter(wrong, 0).unwrap_err();
            assert!(why.contains("ringload=debug"), "{wrong}: {why}");
        }
        assert_eq!(level_filter(2).to_string(), "debug");
    }
}
