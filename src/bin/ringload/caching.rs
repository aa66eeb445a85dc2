//! The options of the local file cache that subcommands share.

use ringload::{CacheSize, CacheValidate, Loader};
use std::path::PathBuf;
use std::time::Duration;

/// How long the end of the command waits for what is not written yet.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the cache is, and how it is used.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Options for the local file cache")]
pub struct Caching {
    /// Keep what comes over the network in this directory, and read it from there the next time
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// How large the cache may get: 'unlimited', or a size such as 200GiB
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<CacheSize>,
    /// When to ask whether an object has changed: always, never, or after an age such as 10m or 1h
    #[arg(long, value_name = "WHEN")]
    cache_validate: Option<CacheValidate>,
}

impl Caching {
    /// The loader with these options. What is not given is left to the library, which reads the
    /// environment.
    pub fn apply(&self, mut loader: Loader) -> Loader {
        if let Some(directory) = &self.cache_dir {
            loader = loader.cache_dir(directory);
        }
        if let Some(size) = self.cache_size {
            loader = loader.cache_size(size);
        }
        if let Some(validate) = self.cache_validate {
            loader = loader.cache_validate(validate);
        }
        loader
    }
}

/// Waits until the cache has what was loaded, and says so if it takes too long.
pub fn flush(loader: &Loader) {
    if !loader.flush(Some(PATIENCE)) {
        let seconds = PATIENCE.as_secs();
        tracing::warn!(
            "the cache is not written after {seconds} s; what is missing is loaded again"
        );
    }
}
