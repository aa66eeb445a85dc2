//! The sources of a streamer's files, opened as rarely as may be.
//!
//! A load is many submissions, and each names the files again. Files are opened anew for each: that is
//! cheap, and a file may be another one by then. Objects are kept, with the identity that they were
//! opened with: so a load of many submissions is of one version of each. One that was not asked for in
//! a while is opened anew; one that failed, too.

use super::code::{Failure, lacking};
use crate::checkpoint::parallel::{WAITING_THREADS, try_map};
use crate::error::Result;
use crate::location::Location;
use crate::source::{Opener, Source};
use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Objects that were not asked for in this time are opened anew.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Sources, and when they were asked for last.
type Kept = HashMap<Location, (Arc<dyn Source>, Instant)>;

/// Sources that are kept.
#[derive(Default)]
pub struct Sources {
    kept: Mutex<Kept>,
}

/// A file of a submission: its source, or why there is none.
pub type Opened = std::result::Result<Arc<dyn Source>, Failure>;

impl Sources {
    /// The sources of the files at `paths`, in order.
    pub fn open(&self, opener: &Opener, paths: &[OsString]) -> Vec<Opened> {
        let locations: Vec<_> = paths.iter().map(|path| Location::parse_os(path)).collect();
        let remote = |location: &&Result<Location>| matches!(location, Ok(Location::Object(_)));
        let waits = locations.iter().filter(remote).count();
        let open = |at: usize| Ok(self.one(opener, &locations[at]));
        // Opening one fails for itself, never for all.
        try_map(paths.len(), WAITING_THREADS.min(waits).max(1), open).unwrap_or_default()
    }

    fn one(&self, opener: &Opener, location: &Result<Location>) -> Opened {
        let location = location.as_ref().map_err(|error| Failure::of(error, false))?;
        if let Some(source) = self.kept(location) {
            return Ok(source);
        }
        let opened = opener.open(location).map_err(|error| match location {
            Location::Object(uri) => {
                lacking(uri.scheme()).map_or_else(|| Failure::of(&error, false), Failure::new)
            }
            Location::File(_) => Failure::of(&error, false),
        })?;
        if opened.is_remote() {
            self.lock().insert(location.clone(), (Arc::clone(&opened), Instant::now()));
        }
        Ok(opened)
    }

    fn kept(&self, location: &Location) -> Option<Arc<dyn Source>> {
        let mut kept = self.lock();
        let (source, used) = kept.get_mut(location)?;
        if used.elapsed() < KEPT_FOR {
            *used = Instant::now();
            return Some(Arc::clone(source));
        }
        kept.remove(location);
        None
    }

    /// Opens the source at `location` anew the next time.
    pub fn forget(&self, location: &Location) {
        self.lock().remove(location);
    }

    /// Opens all anew.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
