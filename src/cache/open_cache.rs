//! An open cache, which the sources and readers of its objects share.

use super::cache_dir::{CacheDir, KnownObject};
use super::check_limit::CheckLimit;
use super::entries::Entries;
use super::writer::Writer;
use crate::options::{CacheSettings, CacheSize, CacheValidate, cores};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct OpenCache {
    pub dir: Arc<CacheDir>,
    pub entries: Entries,
    pub writer: Writer,
    pub checks: CheckLimit,
    validate: CacheValidate,
}

impl OpenCache {
    /// Opens the cache with these settings. A directory that cannot be written is opened for
    /// reading.
    pub fn new(settings: &CacheSettings) -> Self {
        let (dir, refusal) = CacheDir::open(&settings.dir, settings.access);
        if let Some(refusal) = refusal {
            dir.stop_writing("write", &refusal);
        }
        let limit_bytes = match settings.size {
            CacheSize::Unlimited => None,
            CacheSize::Bytes(bytes) => Some(bytes),
        };
        Self {
            entries: Entries::new(Arc::clone(&dir), limit_bytes),
            writer: Writer::new(Arc::clone(&dir), limit_bytes, settings.waits_for_disk),
            checks: CheckLimit::new(cores()),
            validate: settings.validate,
            dir,
        }
    }

    /// Whether the known identity of an object is used without asking its store.
    pub fn trusts(&self, known: &KnownObject) -> bool {
        known.age.is_some_and(|age| self.trusts_age(age))
    }

    /// Whether a store's answer of this age is used without asking again.
    pub fn trusts_age(&self, age: Duration) -> bool {
        match self.validate {
            CacheValidate::Always => false,
            CacheValidate::Never => true,
            CacheValidate::Age(most) => age < most,
        }
    }
}
