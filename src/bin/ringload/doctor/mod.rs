//! `ringload doctor`: reports what this machine offers to a load, and how to improve it.
//!
//! Each file examines one part of the machine and returns [`Finding`]s; none of them prints. The
//! texts of /proc and /sys are interpreted by pure functions, which the tests call. The library
//! itself probes io_uring, registered buffers and direct I/O, so that the results are valid for its
//! loads.

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
use ringload::{Error, ErrorKind, Location, LocationText};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Report what this machine offers to a load, and how to improve it
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
    path: LocationText,
    findings: Vec<Finding>,
}

/// Runs the subcommand. Warnings are not failures.
///
/// # Errors
/// When the path does not exist or is neither a directory nor a regular file, or the answer cannot be written.
pub fn run(args: Args) -> Outcome {
    let location = Location::parse_os(args.path.as_os_str()).map_err(Failure::Usage)?;
    let Location::File(path) = location else {
        let sentence = "doctor examines this machine and a local path, and none of a store or a web \
                        server; name a directory";
        return Err(Failure::usage(sentence));
    };
    let path = path.canonicalize().map_err(|error| {
        Failure::from(Error::from_io(format!("examine {}", path.display()), error))
    })?;
    if !path.is_dir() && !path.is_file() {
        let sentence = format!(
            "cannot examine {}: it is neither a directory nor a regular file; name the directory \
             that checkpoints are read from",
            path.display()
        );
        return Err(Error::new(ErrorKind::InvalidInput, sentence).into());
    }
    let findings = examine(&path);
    if args.json {
        let path = LocationText::from(path.as_path());
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
