//! `ringload-perf`: measures ringload, its peers and the limits of the hardware.
//!
//! ```text
//! scenario/*   loads and their clients        peers/*   other loaders, in the versions of peers.toml
//!     |                                       tools     this repository's binaries; limit: bare limits
//!     v
//! lab          turns A B A B: client -> child process; the page cache and the server (nginx, or the
//!     |        emulated store) are prepared, noise is monitored
//!     |
//!     v
//! records      JSON lines, written at once; results: the same by scenarios and cases
//!     |---> report     tables on the terminal, and one HTML file with plots
//!     '---> figures    those of README.md and docs/
//! ```
//!
//! `targets` has every target. `ringload-measure` (common) runs processes, prepares the page cache and
//! decides whether two clients differ. `simulate` predicts the loads of larger machines and is
//! independent of the records.

mod blocks;
mod by_name;
mod client;
mod figures;
mod files;
mod lab;
mod limit;
mod measured;
mod mount;
mod nginx;
mod noise;
mod peers;
mod records;
mod report;
mod results;
mod scenario;
mod server;
mod session;
mod simulate;
mod store;
mod targets;
mod tools;

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;

/// Measures ringload, its peers and the limits of the hardware.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    session: session::SessionArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the report of existing records, as FILE.html
    Render {
        /// Records, as FILE.jsonl
        #[arg(value_name = "FILE")]
        records: PathBuf,
    },
    /// Compare the figures of README.md and docs/ with the records in perf/results
    Figures(figures::Args),
    /// Predict load times on other machines, or check the prediction against records
    Simulate(simulate::Args),
    /// Compare a program that asks for tensors by name with a plain stream, from an emulated store
    ByName(by_name::Args),
    /// Run an emulated object store until this process is killed (started by a session)
    #[command(name = "emulated-store", hide = true)]
    Store(store::Args),
    /// Serve a slow FUSE mount until the input ends (started by a session)
    #[command(hide = true)]
    Mount(mount::Args),
    /// Measure one limit in this process (started by a session)
    #[command(hide = true, subcommand)]
    Limit(limit::Limit),
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.command {
        None => session::run(&args.session),
        Some(Command::Render { records }) => {
            println!("{}", report::render(&records)?.display());
            Ok(())
        }
        Some(Command::Figures(args)) => figures::run(&args),
        Some(Command::Simulate(args)) => simulate::run(&args),
        Some(Command::ByName(args)) => by_name::run(&args),
        Some(Command::Store(args)) => store::run(args),
        Some(Command::Mount(args)) => mount::run(&args),
        Some(Command::Limit(limit)) => limit::run(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// The scenario `store` could not be measured by its name, as there was a command `store`.
    #[test]
    fn no_scenario_has_the_name_of_a_command() {
        let command = Args::command();
        command.clone().debug_assert();
        for scenario in scenario::ALL {
            assert!(command.find_subcommand(scenario.name).is_none(), "{}", scenario.name);
        }
    }
}
