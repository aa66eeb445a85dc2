//! Has the place of `cache` in a build without the feature `http`: there are no objects to cache. The
//! options can be set all the same.

use crate::options::CacheOptions;
use crate::source::CacheLayer;
use std::time::Duration;

/// The options of a cache that is never used.
#[derive(Default)]
pub(crate) struct Cache {
    pub options: CacheOptions,
}

impl Cache {
    pub fn new(options: CacheOptions) -> Self {
        Self { options }
    }

    pub fn flush(&self, _: Option<Duration>) -> bool {
        true
    }

    pub fn warning(&self) -> Option<String> {
        None
    }
}

impl CacheLayer for Cache {}
