//! The loader's options for the local file cache.

use super::loader::Loader;
use crate::cache::Cache;
use crate::error::Result;
use crate::options::{CacheAccess, CacheOptions, CacheSize, CacheValidate};
use crate::source::Opener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

impl Loader {
    /// Caches objects of stores and web servers in `directory` and loads them from there the next time.
    /// Takes precedence over the environment ([`from_env`](Self::from_env)).
    ///
    /// Objects are written to the cache in the background while they are loaded. The load does not wait
    /// for that; see [`flush`](Self::flush). Any number of loaders and processes may share a directory.
    #[must_use]
    pub fn cache_dir(self, directory: impl Into<PathBuf>) -> Self {
        self.cache(|options| options.dir = Some(Some(directory.into())))
    }

    /// Uses no cache, even if the environment configures one ([`from_env`](Self::from_env)).
    #[must_use]
    pub fn no_cache(self) -> Self {
        self.cache(|options| options.dir = Some(None))
    }

    /// Limits the size of the cache on disk. Entries are evicted least recently used first; entries
    /// in use are not evicted.
    #[must_use]
    pub fn cache_size(self, size: CacheSize) -> Self {
        self.cache(|options| options.size = Some(size))
    }

    /// Sets when to ask the store whether a cached object has changed.
    #[must_use]
    pub fn cache_validate(self, validate: CacheValidate) -> Self {
        self.cache(|options| options.validate = Some(validate))
    }

    /// Sets whether the cache belongs to everyone who may write to its directory. By default it belongs
    /// to one user: a directory or a file that another user owns or may write to is not used, and
    /// nobody else can read new entries. New entries of a shared cache have the permissions of its
    /// directory.
    #[must_use]
    pub fn cache_shared(self, shared: bool) -> Self {
        self.cache(|options| options.access = Some(CacheAccess::shared(shared)))
    }

    /// Makes the cache that of a download.
    pub(super) fn cache_of_download(self) -> Self {
        self.cache(|options| options.access = Some(CacheAccess::Download))
    }

    /// Sets whether a load waits for the cache's disk if it is slower than the network, so that
    /// everything is cached. By default, bytes that arrive too fast for the disk are left out, and
    /// a later load adds them.
    #[must_use]
    pub fn cache_waits_for_disk(self, waits_for_disk: bool) -> Self {
        self.cache(|options| options.waits_for_disk = waits_for_disk)
    }

    /// Waits until all loaded objects are written to the cache, but no longer than `timeout` if it is
    /// set. Returns false if the timeout expired.
    ///
    /// Call it before the process ends: bytes that are not written by then are loaded from their store
    /// again.
    pub fn flush(&self, timeout: Option<Duration>) -> bool {
        self.cache.flush(timeout)
    }

    /// The first problem of the cache, for example a full disk or a directory that cannot be
    /// written. `None` if there was none.
    pub fn cache_warning(&self) -> Option<String> {
        self.cache.warning()
    }

    /// The directory of the cache, as set here or by the environment.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming a variable that cannot be read.
    pub fn cache_directory(&self) -> Result<Option<PathBuf>> {
        let settings = self.cache.options.settings(&*self.opener.options.env)?;
        Ok(settings.map(|settings| settings.dir))
    }

    fn cache(mut self, change: impl FnOnce(&mut CacheOptions)) -> Self {
        let mut options = self.cache.options.clone();
        change(&mut options);
        self.cache = Arc::new(Cache::new(options));
        let opener = Opener::new(self.opener.options.clone()).with_cache(self.cache.clone());
        let opener = opener.watched_by(self.opener.progress());
        self.opener = Arc::new(opener.cancelled_by(self.opener.cancellation()));
        self
    }
}
