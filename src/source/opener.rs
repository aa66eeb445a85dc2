//! Opens local and remote sources for one loader.

use super::cache_layer::{CacheLayer, RemoteObject};
use super::cancellation::Cancellation;
use super::file_source::FileSource;
use super::http::Client;
use super::store::{ListDepth, ListEntry, Stores, anyscale};
use super::traits::Source;
use crate::error::Result;
use crate::location::{Location, ObjectUri, Scheme};
use crate::options::RemoteOptions;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Opens sources. The client for remote sources is made when the first of them is opened, so that
/// loads of files do not pay for certificates, credentials and threads.
///
/// An opener sees each repository of the Hub at one commit. The loader makes a
/// [new opener](Self::renewed) for each checkpoint.
#[derive(Clone, Default)]
pub(crate) struct Opener {
    pub options: RemoteOptions,
    client: Arc<OnceLock<Arc<Client>>>,
    stores: Arc<Stores>,
    repositories: Arc<Stores>,
    /// Whether files without a checksum may be opened while verification is enabled.
    allows_unverified_files: bool,
    cache: Option<Arc<dyn CacheLayer>>,
    cancellation: Cancellation,
}

impl Opener {
    /// An opener with `options`.
    pub fn new(options: RemoteOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// This opener with `cache` for all objects.
    pub fn with_cache(self, cache: Arc<dyn CacheLayer>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// This opener, with the same client, whose requests end with `cancellation`.
    pub fn cancelled_by(&self, cancellation: &Cancellation) -> Self {
        Self { cancellation: cancellation.clone(), ..self.clone() }
    }

    /// What ends the requests of this opener.
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// An opener with the same client, which looks up the commits of repositories again.
    pub fn renewed(&self) -> Self {
        Self { repositories: Arc::default(), ..self.clone() }
    }

    /// This opener for a load, whose tensors all go to GPUs if `only_gpus` is set. Verification
    /// then covers the copy from host memory to the GPU, so it is useful for files, too.
    pub fn for_gpus(self, only_gpus: bool) -> Self {
        Self { allows_unverified_files: only_gpus, ..self }
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
        let uri = &self.actual(uri)?;
        let remote = self.remote(uri, verify)?;
        match &self.cache {
            Some(cache) => cache.open(&remote),
            None => remote.open(),
        }
    }

    /// The names of the objects directly in `directory`, relative to it; `None` if the server cannot
    /// list.
    ///
    /// # Errors
    /// The errors of the store.
    pub fn list(&self, directory: &ObjectUri) -> Result<Option<Vec<String>>> {
        let uri = &self.actual(directory)?;
        let remote = self.remote(uri, false)?;
        let list = || {
            remote.prepare()?;
            let (client, store) = (Arc::clone(remote.client), Arc::clone(&remote.store));
            let key = uri.key().to_owned();
            let cancellation = &self.cancellation;
            remote.client.block_on(cancellation, async move { store.list(&client, &key).await })
        };
        match &self.cache {
            Some(cache) => cache.list(&remote, &list),
            None => list(),
        }
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
        let uri = &self.actual(directory)?;
        let remote = self.remote(uri, false)?;
        remote.prepare()?;
        let (client, store) = (Arc::clone(remote.client), Arc::clone(&remote.store));
        let key = uri.key().to_owned();
        let listing = async move { store.entries(&client, &key, depth).await };
        remote.client.block_on(&self.cancellation, listing)
    }

    /// The location that `uri` stands for: `anyscale://` names a location in another store.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if that location is not configured.
    pub fn actual(&self, uri: &ObjectUri) -> Result<ObjectUri> {
        anyscale::resolve(&self.options, uri)
    }

    /// The object `uri` at its store, without a request.
    ///
    /// # Errors
    /// The errors of invalid options or variables.
    pub(super) fn remote<'a>(
        &'a self,
        uri: &'a ObjectUri,
        verify: bool,
    ) -> Result<RemoteObject<'a>> {
        let client = self.client_of_variables()?;
        let store = match uri.scheme() {
            Scheme::Hf => self.repositories.of(client, uri)?,
            _ => self.stores.of(client, uri)?,
        };
        let allows_unverified_files = self.allows_unverified_files;
        let cancellation = self.cancellation.clone();
        Ok(RemoteObject { client, store, uri, verify, allows_unverified_files, cancellation })
    }

    /// All stores except Hub repositories, for tests that replace a store.
    #[cfg(test)]
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The client, made at the first call with the options in force.
    ///
    /// # Errors
    /// The error of a variable that does not parse.
    fn client_of_variables(&self) -> Result<&Arc<Client>> {
        match self.client.get() {
            Some(client) => Ok(client),
            None => {
                let options = self.options.in_force()?;
                Ok(self.client.get_or_init(|| Client::new(options)))
            }
        }
    }

    /// The client, made at the first call.
    #[cfg(test)]
    pub fn client(&self) -> &Arc<Client> {
        self.client_of_variables().unwrap()
    }
}
