//! The loader's options for remote locations.

use super::loader::Loader;
use crate::error::Result;
use crate::options::{
    PinBy, RemoteOptions, RetryLimits, RunaiVariables, S3Credentials, environment, parse_header,
};
use crate::source::Opener;
use std::sync::Arc;

impl Loader {
    /// Sets the region of S3 buckets. Default: the region of the profile or the environment, or the
    /// region that the bucket reports.
    #[must_use]
    pub fn region(self, region: impl Into<String>) -> Self {
        self.remote(|options| options.region = Some(region.into()))
    }

    /// Sets the keys that sign requests to S3. No other credentials are searched for, and requests
    /// are signed even if the environment disables signing.
    #[must_use]
    pub fn s3_credentials(self, credentials: S3Credentials) -> Self {
        self.remote(|options| options.s3_credentials = Some(credentials))
    }

    /// Sets the base URL of a compatible store (`http://minio:9000`), for `s3://`, `gs://`, `az://`
    /// and `hf://`. Takes precedence over variables of stores ([`options`](crate::options)).
    #[must_use]
    pub fn endpoint(self, url: impl Into<String>) -> Self {
        self.remote(|options| options.endpoint = Some(url.into()))
    }

    /// Sends the header `Name: value` with every request to the servers that locations name, but
    /// not to servers to which they redirect. Each call adds a header.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is not a header; the error does not
    /// contain the value.
    pub fn header(self, header: &str) -> Result<Self> {
        let header = parse_header(header)?;
        Ok(self.remote(|options| options.headers.push(header)))
    }

    /// Sets how many connections a load uses, at most 1024; 0 adapts the number to the measured throughput.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        self.remote(|options| options.connections = (connections > 0).then_some(connections))
    }

    /// Honours the variables of the Run:ai Model Streamer that [`from_env`](Self::from_env) does not:
    /// the number of connections to a store (`RUNAI_STREAMER_CONCURRENCY` or
    /// `RUNAI_STREAMER_OBJ_CONCURRENCY`), and how files are read (`RUNAI_STREAMER_FS_STRATEGY`). For
    /// programs that replace that streamer.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable that is invalid.
    pub fn runai_env(self) -> Result<Self> {
        let variables = RunaiVariables::read(environment)?;
        let loader = match variables.connections {
            Some(connections) => self.connections(connections),
            None => self,
        };
        Ok(match variables.read_path {
            Some(path) => loader.read_path(path),
            None => loader,
        })
    }

    /// Sets what is compared in each response of a server to notice that an object is replaced while it
    /// is read. Objects that are pinned by less than [`PinBy::Etag`] are not cached.
    #[must_use]
    pub fn pin(self, pin: PinBy) -> Self {
        self.remote(|options| options.pin = Some(pin))
    }

    /// Sets whether objects are read even if their server sends nothing that [`pin`](Self::pin)
    /// compares: an ETag or, by default, a modification time. A replacement of the same length is then
    /// not noticed, which is logged as a warning, unless the store has a checksum of the object and all
    /// of it is loaded. By default such an object is an error.
    #[must_use]
    pub fn unpinned(self, unpinned: bool) -> Self {
        self.remote(|options| options.unpinned = Some(unpinned))
    }

    /// Sets how often and for how long a request is retried.
    #[must_use]
    pub fn retry_limits(self, limits: RetryLimits) -> Self {
        self.remote(|options| options.retries = limits)
    }

    pub(super) fn remote(mut self, change: impl FnOnce(&mut RemoteOptions)) -> Self {
        let mut options = self.opener.options.clone();
        change(&mut options);
        let opener = Opener::new(options).with_cache(self.cache.clone());
        let opener = opener.watched_by(self.opener.progress());
        self.opener = Arc::new(opener.cancelled_by(self.opener.cancellation()));
        self
    }
}
