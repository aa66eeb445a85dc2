//! The LOCATION arguments that subcommands share.

use ringload::{IntoLocations, Location};
use std::ffi::OsString;
use std::path::Path;

/// What to read.
#[derive(Debug, clap::Args)]
pub struct Locations {
    /// A safetensors file, a directory of them, an index, or a pattern such as 'model-*.safetensors';
    /// a path, or a URL: http(s)://, s3://, gs://, az://, hf://owner/repo, anyscale://
    #[arg(value_name = "LOCATION", required = true)]
    arguments: Vec<OsString>,
}

impl Locations {
    /// The arguments as locations. A path that is not UTF-8 is taken as it stands.
    ///
    /// # Errors
    /// When an argument cannot be a location, e.g. an unknown scheme.
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
