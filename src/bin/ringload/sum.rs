//! `ringload sum`: prints a manifest with the checksums of a checkpoint's files and tensors.
//!
//! The manifest is printed when all of it is known. An error leaves the output empty, and an output that
//! breaks off lacks the end of the JSON object.

use crate::failure::Outcome;
use crate::locations::Locations;
use crate::options::{self, ReadOptions};
use crate::output;

/// Print a manifest of checksums, for load --manifest.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    locations: Locations,
    #[command(flatten)]
    options: ReadOptions,
    /// Also compute the SHA-256 of each file, which takes longer
    #[arg(long)]
    sha256: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When the checkpoint cannot be read or the manifest cannot be written.
pub fn run(args: Args) -> Outcome {
    let loader = args.options.loader()?;
    let manifest = loader.sum(args.locations.parse()?, args.sha256)?;
    options::flush(&loader);
    output::print(|out| write!(out, "{manifest}"))
}
