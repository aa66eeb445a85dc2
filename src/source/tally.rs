//! How often something had to be asked for again, by reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How often something had to be asked for again, by reason.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// Counts one more, for the reason `word`.
    pub(crate) fn retry(&self, word: &'static str) {
        crate::metrics::retry(word);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += 1;
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
