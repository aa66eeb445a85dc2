//! The open sources of a streamer's objects, kept across submissions.
//!
//! A load consists of many submissions, each of which names its files again. Local files are opened
//! anew for each submission, which is cheap, as a file may have been replaced. Objects are kept
//! with the identity that they were opened with, so that all submissions of a load read one version
//! of each object. An object is opened anew after a failure, and when it was not requested for a
//! minute.

use super::code::{Failure, unsupported_scheme};
use crate::checkpoint::parallel::{opening_threads, try_map};
use crate::error::Result;
use crate::location::Location;
use crate::source::{Opener, Source};
use crate::sync::Mutex;
use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Objects that were not requested for this long are opened anew.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// Open objects, and when each was requested last.
#[derive(Default)]
pub struct SourceCache {
    objects: Mutex<HashMap<Location, OpenObject>>,
}

type OpenObject = (Arc<dyn Source>, Instant);

/// The source of a file of a submission, or the reason why the file cannot be opened.
pub type OpenResult = std::result::Result<Arc<dyn Source>, Failure>;

impl SourceCache {
    /// Returns the sources of the files at `paths`, in order.
    pub fn open(&self, opener: &Opener, paths: &[OsString]) -> Vec<OpenResult> {
        let locations: Vec<_> = paths.iter().map(|path| Location::parse_os(path)).collect();
        let remote = |location: &&Result<Location>| matches!(location, Ok(Location::Object(_)));
        let objects = locations.iter().filter(remote).count();
        let open = |at: usize| Ok(self.open_one(opener, &locations[at]));
        // Each result is that of one file. `try_map` itself never fails.
        try_map(paths.len(), opening_threads(&opener.options).min(objects).max(1), open)
            .unwrap_or_default()
    }

    fn open_one(&self, opener: &Opener, location: &Result<Location>) -> OpenResult {
        let location = location.as_ref().map_err(|error| Failure::of(error, false))?;
        if let Some(source) = self.cached(location) {
            return Ok(source);
        }
        let source = opener.open(location).map_err(|error| match location {
            Location::Object(uri) => unsupported_scheme(uri.scheme())
                .map_or_else(|| Failure::of(&error, false), Failure::new),
            Location::File(_) => Failure::of(&error, false),
        })?;
        if source.is_remote() {
            let entry = (Arc::clone(&source), Instant::now());
            self.objects.lock().insert(location.clone(), entry);
        }
        Ok(source)
    }

    fn cached(&self, location: &Location) -> Option<Arc<dyn Source>> {
        let mut objects = self.objects.lock();
        let (source, used) = objects.get_mut(location)?;
        if used.elapsed() < MAX_IDLE {
            *used = Instant::now();
            return Some(Arc::clone(source));
        }
        objects.remove(location);
        None
    }

    /// Removes the source at `location`, which is then opened anew the next time.
    pub fn forget(&self, location: &Location) {
        self.objects.lock().remove(location);
    }

    /// Removes all sources, which are then opened anew the next time.
    pub fn forget_all(&self) {
        self.objects.lock().clear();
    }
}
