//! The arguments that the subcommands on checkpoints share.

use crate::failure::{Failure, Outcome};
use ringload::{IntoLocations, Location};
use std::ffi::OsString;

/// The arguments of a subcommand that reads checkpoints; `Options` are the flags of its loader.
#[derive(Debug, clap::Args)]
pub struct CheckpointArgs<Options: clap::Args> {
    #[command(flatten)]
    pub locations: Locations,
    #[command(flatten)]
    pub options: Options,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The locations to read.
#[derive(Debug, clap::Args)]
pub struct Locations {
    /// A safetensors file, a directory of them, an index, or a pattern such as 'model-*.safetensors';
    /// a path, or a URL: http(s)://, s3://, gs://, az://, hf://owner/repo, anyscale://
    #[arg(value_name = "LOCATION", required = true)]
    arguments: Vec<OsString>,
}

impl Locations {
    /// Parses the arguments. An argument that is not UTF-8 is a path.
    ///
    /// # Errors
    /// [`Failure::Usage`] when an argument is not a location, for example because its scheme is
    /// unknown.
    pub fn parse(&self) -> Outcome<Vec<Location>> {
        self.arguments.as_slice().into_locations().map_err(Failure::Usage)
    }
}

/// Whether a location is a local file, or files.
pub fn is_local(location: &Location) -> bool {
    matches!(location, Location::File(_))
}
