//! `ringload doctor`: what this machine offers to a load, and how to get what is missing.
//!
//! Each file here looks at one part of the machine and returns [`Finding`]s; none of them prints.
//! What the kernel says in /proc and /sys is read by `read_*` functions and understood by pure
//! functions beside them, which are what the tests test. Whether io_uring, registered buffers and
//! direct I/O work is asked of the library itself, so that the answer holds for its loads too.

mod cgroup;
mod cpu;
mod cuda;
mod finding;
mod kernel;
mod memory;
mod storage;
mod uring;

pub use storage::file_system;

use crate::failure::{Failure, Outcome};
use crate::output;
use finding::Finding;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Say what this machine offers, and how to get what is missing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or directory that checkpoints are read from
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The answer of `--json`.
#[derive(Serialize)]
struct Diagnosis {
    version: &'static str,
    path: String,
    findings: Vec<Finding>,
}

/// Runs the subcommand. A shortfall is an answer, not a failure.
///
/// # Errors
/// When the path does not exist or the answer cannot be written.
pub fn run(args: Args) -> Outcome {
    let path = args.path.canonicalize().map_err(|error| {
        Failure::from(ringload::Error::from_io(format!("examine {}", args.path.display()), error))
    })?;
    let findings = examine(&path);
    if args.json {
        let path = path.display().to_string();
        output::print_json(&Diagnosis { version: env!("CARGO_PKG_VERSION"), path, findings })
    } else {
        output::print(|out| finding::write(out, &findings))
    }
}

fn examine(path: &Path) -> Vec<Finding> {
    let parts = [
        kernel::examine(),
        uring::examine(),
        memory::examine(),
        storage::examine(path),
        cpu::examine(),
        cuda::examine(),
    ];
    parts.into_iter().flatten().collect()
}

/// A small file of /proc or /sys without its last line break; `None` where it cannot be read.
pub fn read_text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end().to_owned())
}
