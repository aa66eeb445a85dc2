//! Opening sources, local and remote, for one loader.

use super::http::Client;
use super::store::{Depth, Entry, Stores, anyscale};
use super::{CacheLayer, FileSource, Remote, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri, Scheme};
use crate::options::RemoteOptions;
use std::sync::{Arc, OnceLock};

/// Opens sources. The client for remote ones is made when the first of them is opened: certificates,
/// credentials and threads cost nothing where only files are read.
///
/// Repositories of the Hub are those of one opener, which sees each of them at one commit: the
/// loader's opener is asked for another one [for each checkpoint](Self::anew).
#[derive(Debug, Clone, Default)]
pub(crate) struct Opener {
    pub options: RemoteOptions,
    client: Arc<OnceLock<Arc<Client>>>,
    stores: Arc<Stores>,
    repositories: Arc<Stores>,
    /// Whether files may be opened although bytes are to be verified and nothing is kept to verify
    /// theirs against.
    takes_files_unverified: bool,
    front: Option<Arc<dyn CacheLayer>>,
}

impl Opener {
    /// An opener of remote sources with `options`.
    pub fn new(options: RemoteOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// The same with `front` before all objects.
    pub fn behind(self, front: Arc<dyn CacheLayer>) -> Self {
        Self { front: Some(front), ..self }
    }

    /// An opener with the same client, which finds out anew what may have changed since.
    pub fn anew(&self) -> Self {
        Self { repositories: Arc::default(), ..self.clone() }
    }

    /// The same, for tensors that all go to GPUs: there, verifying covers the way from host memory
    /// onto the GPU, which has its use for files, too.
    pub fn for_gpus(self, only_gpus: bool) -> Self {
        Self { takes_files_unverified: only_gpus, ..self }
    }

    /// Opens the source at `location`.
    ///
    /// # Errors
    /// As the kind of source says: see [`FileSource::open`]; for objects, what their store says.
    pub fn open(&self, location: &Location) -> Result<Arc<dyn Source>> {
        match location {
            Location::File(_) if self.options.verify && !self.takes_files_unverified => {
                let sentence = format!(
                    "{location} is a file, of which no checksum is kept; load it without --verify"
                );
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
            Location::File(path) => Ok(Arc::new(FileSource::open(path)?)),
            Location::Object(uri) => self.open_object(uri, self.options.verify),
        }
    }

    /// Opens the object `uri`; with `verify`, its bytes are to be checked against its checksum.
    ///
    /// # Errors
    /// What its store says.
    pub fn open_object(&self, uri: &ObjectUri, verify: bool) -> Result<Arc<dyn Source>> {
        let uri = &self.actual(uri)?;
        let remote = self.remote(uri, verify)?;
        match &self.front {
            Some(front) => front.open(&remote),
            None => remote.open(),
        }
    }

    /// The names of the objects directly in `directory`, relative to it; `None` where its server
    /// cannot list.
    ///
    /// # Errors
    /// What the store says.
    pub fn list(&self, directory: &ObjectUri) -> Result<Option<Vec<String>>> {
        let uri = &self.actual(directory)?;
        let remote = self.remote(uri, false)?;
        let ask = || {
            remote.prepare()?;
            let (client, store) = (Arc::clone(remote.client), Arc::clone(&remote.store));
            let key = uri.key().to_owned();
            remote.client.block_on(async move { store.list(&client, &key).await })
        };
        match &self.front {
            Some(front) => front.list(&remote, &ask),
            None => ask(),
        }
    }

    /// The objects in `directory`, as deep as `depth` says; `None` where its server cannot list. Asked of
    /// the store itself.
    ///
    /// # Errors
    /// What the store says.
    pub fn entries(&self, directory: &ObjectUri, depth: Depth) -> Result<Option<Vec<Entry>>> {
        let uri = &self.actual(directory)?;
        let remote = self.remote(uri, false)?;
        remote.prepare()?;
        let (client, store) = (Arc::clone(remote.client), Arc::clone(&remote.store));
        let key = uri.key().to_owned();
        remote.client.block_on(async move { store.entries(&client, &key, depth).await })
    }

    /// Where `uri` really is: `anyscale://` stands for a place in another store.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where that place is not known.
    pub fn actual(&self, uri: &ObjectUri) -> Result<ObjectUri> {
        anyscale::actual(&self.options, uri)
    }

    /// The object `uri` at its store, which nobody is asked for yet.
    ///
    /// # Errors
    /// Those of an option or variable that cannot be used.
    pub(super) fn remote<'a>(&'a self, uri: &'a ObjectUri, verify: bool) -> Result<Remote<'a>> {
        let client = self.client();
        let store = match uri.scheme() {
            Scheme::Hf => self.repositories.of(client, uri)?,
            _ => self.stores.of(client, uri)?,
        };
        Ok(Remote { client, store, uri, verify })
    }

    /// The stores of everything but Hub repositories, for tests that put their own among them.
    #[cfg(test)]
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The client, made if need be.
    pub fn client(&self) -> &Arc<Client> {
        self.client.get_or_init(|| Client::new(self.options.clone()))
    }
}
