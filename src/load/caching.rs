//! The loader's options for the local file cache.

use super::Loader;
use crate::cache::Cache;
use crate::error::Result;
use crate::options::{self, CacheOptions, CacheSize, CacheValidate};
use crate::source::Opener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

impl Loader {
    /// Keeps what is loaded from stores and web servers in `directory`, and reads it from there the
    /// next time. Wins over the environment ([`options`](crate::options)).
    ///
    /// What comes over the network is written while it streams, behind the load, which does not wait
    /// for it: see [`flush`](Self::flush). Any number of loaders and processes may share a directory.
    #[must_use]
    pub fn cache_dir(self, directory: impl Into<PathBuf>) -> Self {
        self.cache(|options| options.dir = Some(Some(directory.into())))
    }

    /// No cache, whatever the environment says.
    #[must_use]
    pub fn no_cache(self) -> Self {
        self.cache(|options| options.dir = Some(None))
    }

    /// How large the cache may get on disk; what was used longest ago goes, what is in use does not.
    #[must_use]
    pub fn cache_size(self, size: CacheSize) -> Self {
        self.cache(|options| options.size = Some(size))
    }

    /// When a store is asked whether an object is still what the cache holds.
    #[must_use]
    pub fn cache_validate(self, validate: CacheValidate) -> Self {
        self.cache(|options| options.validate = Some(validate))
    }

    /// Whether a load waits for the cache's disk where that is slower than the network, so that all
    /// of it is cached. By default what the disk cannot take is left out, for a later load to add.
    #[must_use]
    pub fn cache_patiently(self, patient: bool) -> Self {
        self.cache(|options| options.patient = patient)
    }

    /// Waits until what was loaded is in the cache, at most for `patience` if that is given. False
    /// when it is not by then.
    ///
    /// Call it before the process ends: what is not written then is loaded from its store again.
    pub fn flush(&self, patience: Option<Duration>) -> bool {
        self.cache.flush(patience)
    }

    /// Why the cache does less than it should, if so: a full disk, a directory that cannot be written.
    pub fn cache_trouble(&self) -> Option<String> {
        self.cache.trouble()
    }

    /// The directory of the cache, as set here or else by the environment.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming a variable that cannot be read.
    pub fn cache_directory(&self) -> Result<Option<PathBuf>> {
        let settings = self.cache.options.settings(options::environment)?;
        Ok(settings.map(|settings| settings.dir))
    }

    fn cache(mut self, change: impl FnOnce(&mut CacheOptions)) -> Self {
        let mut options = self.cache.options.clone();
        change(&mut options);
        self.cache = Arc::new(Cache::new(options));
        self.opener =
            Arc::new(Opener::new(self.opener.options.clone()).with_cache(self.cache.clone()));
        self
    }
}
