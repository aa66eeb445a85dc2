//! The loader's options for remote locations.

use super::Loader;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{
    RemoteOptions, RetryLimits, RunaiVariables, S3Credentials, environment, parse_header,
};
use crate::plan::Plan;
use crate::source::Opener;
use std::sync::Arc;

impl Loader {
    /// The region of S3 buckets. Else that of the profile or the environment, or the bucket's own
    /// answer.
    #[must_use]
    pub fn region(self, region: impl Into<String>) -> Self {
        self.remote(|options| options.region = Some(region.into()))
    }

    /// The keys that requests to S3 are signed with; nothing else is looked for then, also where the
    /// environment says that requests are not signed.
    #[must_use]
    pub fn s3_credentials(self, credentials: S3Credentials) -> Self {
        self.remote(|options| options.s3_credentials = Some(credentials))
    }

    /// The base URL of a compatible store (`http://minio:9000`), for `s3://`, `gs://`, `az://` and
    /// `hf://`. Wins over the environment ([`options`](crate::options)).
    #[must_use]
    pub fn endpoint(self, url: impl Into<String>) -> Self {
        self.remote(|options| options.endpoint = Some(url.into()))
    }

    /// Sends `Name: value` with every request to the servers that locations name; not to others,
    /// whereto they may redirect. May be set several times.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is no header; without the value.
    pub fn header(self, header: &str) -> Result<Self> {
        let header = parse_header(header)?;
        Ok(self.remote(|options| options.headers.push(header)))
    }

    /// How many connections a load uses; 0 scales them with what is measured.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        self.remote(|options| options.connections = (connections > 0).then_some(connections))
    }

    /// Heeds the variables of Run:ai's streamer that mean something else there than for other loads:
    /// `RUNAI_STREAMER_CONCURRENCY` (or `RUNAI_STREAMER_OBJ_CONCURRENCY`) also is the number of connections
    /// to a store, and `RUNAI_STREAMER_FS_STRATEGY` says how files are read. For programs that take its
    /// place.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable that cannot be read.
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

    /// Whether the bytes of every object are checked against the checksum that its store keeps of
    /// it (CRC64NVME, CRC32C or CRC32 of S3 and GCS, SHA-256 of the Hugging Face Hub) while they
    /// arrive. An object without one is an error then, as is a load of only some of its tensors.
    ///
    /// On the way to a GPU the check goes on: the GPU sums up what it got (CRC-64/NVME), and that
    /// has to be what host memory held. Files, of which no checksum is kept, may be loaded so if all
    /// their tensors go to GPUs.
    #[must_use]
    pub fn verify(self, verify: bool) -> Self {
        self.remote(|options| options.verify = verify)
    }

    /// How often and how long a request is tried.
    #[must_use]
    pub fn retry_limits(self, limits: RetryLimits) -> Self {
        self.remote(|options| options.retries = limits)
    }

    pub(super) fn verifies(&self) -> bool {
        self.opener.options.verify
    }

    /// Fails where verifying was asked for but is not what `plan` would do.
    pub(super) fn check_verifiable(&self, plan: &Plan) -> Result<()> {
        let refuse = |sentence| Err(Error::new(ErrorKind::InvalidInput, sentence));
        if !self.verifies() {
            return Ok(());
        }
        if plan.tensor_count() < plan.checkpoint().tensors().len() {
            return refuse(
                "--verify needs all tensors, as a checksum is of the whole object; load all, or \
                 without --verify",
            );
        }
        if !plan.checkpoint().is_verifiable() {
            return refuse(
                "the checkpoint was opened without its checksums; open it by the loader that is to \
                 verify it",
            );
        }
        Ok(())
    }

    /// Fails where verifying was asked for: parts of objects cannot be.
    pub(super) fn check_not_verifying(&self) -> Result<()> {
        if !self.verifies() {
            return Ok(());
        }
        let sentence = "--verify needs whole objects and ranges of them were asked for; read them \
                        without it";
        Err(Error::new(ErrorKind::InvalidInput, sentence))
    }

    pub(super) fn remote(mut self, change: impl FnOnce(&mut RemoteOptions)) -> Self {
        let mut options = self.opener.options.clone();
        change(&mut options);
        self.opener = Arc::new(Opener::new(options).with_cache(self.cache.clone()));
        self
    }
}
