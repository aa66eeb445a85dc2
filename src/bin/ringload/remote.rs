//! The options for object stores and web servers that subcommands share.

use ringload::Loader;

/// How to reach what is not local.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Options for object stores and web servers")]
pub struct Remote {
    /// Region of the S3 bucket; else that of the profile or the environment, or the bucket's answer
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Base URL of a compatible store, such as http://minio:9000
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Send this header to the servers that are named, such as 'Authorization: Bearer ...'; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// How many connections to use; 0 finds out how many help
    #[arg(long, value_name = "N", default_value_t = 0)]
    connections: usize,
}

impl Remote {
    /// The loader with these options.
    ///
    /// # Errors
    /// When a header is none.
    pub fn apply(&self, loader: Loader) -> ringload::Result<Loader> {
        let mut loader = loader.connections(self.connections);
        if let Some(region) = &self.region {
            loader = loader.region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint(endpoint);
        }
        for header in &self.headers {
            loader = loader.header(header)?;
        }
        Ok(loader)
    }
}
