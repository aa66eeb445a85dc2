//! Opens local and remote sources for one loader.

use super::cancellation::Cancellation;
use super::file_source::FileSource;
use super::list_entry::{ListDepth, ListEntry};
use super::progress::Progress;
use super::purpose::Purpose;
use super::remote::{CacheLayer, RemoteOpener};
use super::traits::Source;
use crate::error::Result;
use crate::location::{Location, ObjectUri};
use crate::options::RemoteOptions;
use std::path::Path;
use std::sync::Arc;

/// Opens sources.
///
/// An opener sees each repository of the Hub at one commit. The loader makes a
/// [new opener](Self::renewed) for each checkpoint.
#[derive(Clone, Default)]
pub(crate) struct Opener {
    pub options: RemoteOptions,
    pub(super) remote: RemoteOpener,
    /// Whether files without a checksum may be opened while verification is enabled.
    allows_unverified_files: bool,
    cancellation: Cancellation,
    /// What counts the calls of this opener's loader, if its caller watches them.
    progress: Option<Progress>,
}

impl Opener {
    /// An opener with `options`.
    pub fn new(options: RemoteOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// This opener with `cache` for all objects.
    pub fn with_cache(self, cache: Arc<dyn CacheLayer>) -> Self {
        Self { remote: self.remote.with_cache(cache), ..self }
    }

    /// This opener, with the same client, whose requests end with `cancellation`.
    pub fn cancelled_by(&self, cancellation: &Cancellation) -> Self {
        Self {
            remote: self.remote.cancelled_by(cancellation),
            cancellation: cancellation.clone(),
            ..self.clone()
        }
    }

    /// What ends the requests of this opener.
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// This opener, with the same client, whose calls `progress` counts.
    pub fn watched_by(&self, progress: Option<&Progress>) -> Self {
        Self { progress: progress.cloned(), ..self.clone() }
    }

    /// What counts the calls of this opener's loader, if its caller watches them.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// An opener with the same client, which looks up the commits of repositories again.
    pub fn renewed(&self) -> Self {
        Self { remote: self.remote.renewed(), ..self.clone() }
    }

    /// This opener for a load, whose tensors all go to GPUs if `only_gpus` is set. Verification
    /// then covers the copy from host memory to the GPU, so it is useful for files, too.
    pub fn for_gpus(self, only_gpus: bool) -> Self {
        Self { allows_unverified_files: only_gpus, ..self }
    }

    /// This opener for this purpose.
    pub fn opening_for(self, purpose: Purpose) -> Self {
        Self { remote: self.remote.opening_for(purpose), ..self }
    }

    /// Opens the source at `location`.
    ///
    /// # Errors
    /// The errors of [`FileSource::open`] for a file, those of the store for an object.
    pub fn open(&self, location: &Location) -> Result<Arc<dyn Source>> {
        self.cancellation.check()?;
        match location {
            Location::File(path) => Ok(Arc::new(self.open_file(path)?)),
            Location::Object(uri) => self.open_object(uri, self.options.verify),
        }
    }

    /// Opens the file at `path`; with `verify`, its bytes are compared with the checksum that was left
    /// beside it.
    fn open_file(&self, path: &Path) -> Result<FileSource> {
        let file = FileSource::open(path)?.pinned_by(self.options.pin_in_force()?);
        if !self.options.verify {
            return Ok(file);
        }
        file.verified(self.allows_unverified_files)
    }

    /// Opens the object `uri`; with `verify`, its bytes are compared with its checksum.
    ///
    /// # Errors
    /// The errors of the store.
    pub fn open_object(&self, uri: &ObjectUri, verify: bool) -> Result<Arc<dyn Source>> {
        self.remote.open(&self.options, uri, verify, self.allows_unverified_files)
    }

    /// The names of the objects directly in `directory`, relative to it; `None` if the server cannot
    /// list.
    ///
    /// # Errors
    /// The errors of the store.
    pub fn list(&self, directory: &ObjectUri) -> Result<Option<Vec<String>>> {
        self.remote.list(&self.options, directory)
    }

    /// The objects in `directory` to `depth`, requested from the store without the cache; `None` if
    /// the server cannot list.
    ///
    /// # Errors
    /// The errors of the store.
    pub fn entries(
        &self,
        directory: &ObjectUri,
        depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        self.remote.entries(&self.options, directory, depth)
    }

    /// The location that `uri` stands for: `anyscale://` names a location in another store.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if that location is not configured.
    pub fn actual(&self, uri: &ObjectUri) -> Result<ObjectUri> {
        self.remote.actual(&self.options, uri)
    }
}
