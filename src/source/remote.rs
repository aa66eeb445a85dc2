//! Opens and lists the objects of stores and web servers for an [`Opener`](super::Opener).
//!
//! A build without the feature `http` has `remote_left_out` in this module's place.

pub(crate) use super::cache_layer::CacheLayer;

use super::cache_layer::RemoteObject;
use super::cancellation::Cancellation;
use super::http::Client;
use super::list_entry::{ListDepth, ListEntry};
use super::purpose::Purpose;
use super::store::{Stores, anyscale};
use super::traits::Source;
use crate::error::Result;
use crate::location::{ObjectUri, Scheme};
use crate::options::RemoteOptions;
use std::sync::{Arc, OnceLock};

/// Opens objects. The client is made when the first of them is opened, so that loads of files do not
/// pay for certificates, credentials and threads.
#[derive(Clone, Default)]
pub(super) struct RemoteOpener {
    client: Arc<OnceLock<Arc<Client>>>,
    stores: Arc<Stores>,
    repositories: Arc<Stores>,
    cache: Option<Arc<dyn CacheLayer>>,
    purpose: Purpose,
    cancellation: Cancellation,
}

impl RemoteOpener {
    /// As [`Opener::with_cache`](super::Opener::with_cache).
    pub fn with_cache(self, cache: Arc<dyn CacheLayer>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// As [`Opener::cancelled_by`](super::Opener::cancelled_by).
    pub fn cancelled_by(&self, cancellation: &Cancellation) -> Self {
        Self { cancellation: cancellation.clone(), ..self.clone() }
    }

    /// As [`Opener::opening_for`](super::Opener::opening_for).
    pub fn opening_for(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// As [`Opener::renewed`](super::Opener::renewed).
    pub fn renewed(&self) -> Self {
        Self { repositories: Arc::default(), ..self.clone() }
    }

    /// As [`Opener::open_object`](super::Opener::open_object). With `allows_unverified_files`, a local
    /// file that the store has of the object need not have a checksum.
    ///
    /// # Errors
    /// The errors of the store.
    pub fn open(
        &self,
        options: &RemoteOptions,
        uri: &ObjectUri,
        verify: bool,
        allows_unverified_files: bool,
    ) -> Result<Arc<dyn Source>> {
        let uri = &self.actual(options, uri)?;
        let remote = self.object(options, uri, verify)?;
        let remote = RemoteObject { allows_unverified_files, ..remote };
        match &self.cache {
            Some(cache) => cache.open(&remote),
            None => remote.open(),
        }
    }

    /// As [`Opener::list`](super::Opener::list).
    ///
    /// # Errors
    /// The errors of the store.
    pub fn list(
        &self,
        options: &RemoteOptions,
        directory: &ObjectUri,
    ) -> Result<Option<Vec<String>>> {
        let uri = &self.actual(options, directory)?;
        let remote = self.object(options, uri, false)?;
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

    /// As [`Opener::entries`](super::Opener::entries).
    ///
    /// # Errors
    /// The errors of the store.
    pub fn entries(
        &self,
        options: &RemoteOptions,
        directory: &ObjectUri,
        depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        let uri = &self.actual(options, directory)?;
        let remote = self.object(options, uri, false)?;
        remote.prepare()?;
        let (client, store) = (Arc::clone(remote.client), Arc::clone(&remote.store));
        let key = uri.key().to_owned();
        let listing = async move { store.entries(&client, &key, depth).await };
        remote.client.block_on(&self.cancellation, listing)
    }

    /// As [`Opener::actual`](super::Opener::actual).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if that location is not configured.
    pub fn actual(&self, options: &RemoteOptions, uri: &ObjectUri) -> Result<ObjectUri> {
        anyscale::resolve(options, uri)
    }

    /// The object `uri` at its store, without a request.
    ///
    /// # Errors
    /// The errors of invalid options or variables.
    pub fn object<'a>(
        &'a self,
        options: &RemoteOptions,
        uri: &'a ObjectUri,
        verify: bool,
    ) -> Result<RemoteObject<'a>> {
        let client = self.client(options)?;
        let store = match uri.scheme() {
            Scheme::Hf => self.repositories.of(client, uri)?,
            _ => self.stores.of(client, uri)?,
        };
        let (purpose, cancellation) = (self.purpose, self.cancellation.clone());
        let allows_unverified_files = false;
        Ok(RemoteObject {
            client,
            store,
            uri,
            verify,
            allows_unverified_files,
            purpose,
            cancellation,
        })
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
    pub fn client(&self, options: &RemoteOptions) -> Result<&Arc<Client>> {
        match self.client.get() {
            Some(client) => Ok(client),
            None => {
                let options = options.in_force()?;
                Ok(self.client.get_or_init(|| Client::new(options)))
            }
        }
    }
}
