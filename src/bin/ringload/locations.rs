//! The LOCATION arguments that subcommands share.

use ringload::{IntoLocations, Location};
use std::ffi::OsString;
use std::path::Path;

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
    /// When an argument is not a location, for example because its scheme is unknown.
    pub fn parse(&self) -> ringload::Result<Vec<Location>> {
        let mut locations = Vec::new();
        for argument in &self.arguments {
            locations.extend(match argument.to_str() {
                Some(text) => text.into_locations()?,
                None => Path::new(argument).into_locations()?,
            });
        }
        Ok(locations)
    }
}
