//! `ringload-perf`: measures ringload beside its peers and the limits of the hardware.
//!
//! ```text
//! scenario/*   what is loaded, by whom        peers/*   other loaders, at the versions of peers.toml
//!     |                                       tools     this repository's binaries; limit: bare limits
//!     v
//! lab          turns A B A B: client -> child process; page_cache and nginx set the scene, noise watches
//!     |
//!     v
//! records      JSON lines, written as they come
//!     |---> report     a table, and one HTML file with plots
//!     '---> simulate   what the measured constants predict for larger machines
//! ```
//!
//! `targets` has every figure that must be reached; `stats` says when two clients differ.

mod child;
mod client;
mod files;
mod lab;
mod limit;
mod measured;
mod nginx;
mod noise;
mod page_cache;
mod peers;
mod records;
mod report;
mod scenario;
mod session;
mod simulate;
mod stats;
mod targets;
mod tools;

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;

/// Measures ringload beside its peers and the limits of the hardware.
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
    /// Write the report of records that were measured before, as FILE.html
    Render {
        /// Records, as FILE.jsonl
        #[arg(value_name = "FILE")]
        records: PathBuf,
    },
    /// Predict load times on other machines, or check the prediction against records
    Simulate(simulate::Args),
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
        Some(Command::Simulate(args)) => simulate::run(&args),
        Some(Command::Limit(limit)) => limit::run(limit),
    }
}
