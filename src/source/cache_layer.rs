//! The interface between the opener and the local file cache.
//!
//! A [`CacheLayer`] opens the sources of all objects. It receives a [`RemoteObject`], with which it
//! can open the object at its store without a request, with a conditional request, or without a
//! cache.

use super::cancellation::Cancellation;
use super::file_source::FileSource;
use super::http::Client;
use super::object::{ObjectIdentity, ObjectSource};
use super::purpose::Purpose;
use super::store::Store;
use super::traits::Source;
use crate::error::Result;
use crate::location::ObjectUri;
use crate::options::PinBy;
use std::sync::Arc;

/// A cache of the objects of all stores.
pub(crate) trait CacheLayer: Send + Sync {
    /// Opens the source of `remote`.
    ///
    /// # Errors
    /// The errors of the store, if a request is needed.
    fn open(&self, remote: &RemoteObject<'_>) -> Result<Arc<dyn Source>>;

    /// The names of the objects directly in the directory `remote`; `list` requests them from the
    /// store.
    ///
    /// # Errors
    /// The errors of `list`, if it is called.
    fn list(
        &self,
        remote: &RemoteObject<'_>,
        list: &dyn Fn() -> Result<Option<Vec<String>>>,
    ) -> Result<Option<Vec<String>>>;
}

/// An object at its store, before any request for it.
pub(crate) struct RemoteObject<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) store: Arc<dyn Store>,
    /// The location, with `anyscale://` resolved.
    pub uri: &'a ObjectUri,
    /// Whether the bytes are to be compared with the object's checksum.
    pub verify: bool,
    /// Whether a local file without a checksum may be opened though it is to be verified.
    pub(super) allows_unverified_files: bool,
    /// What it is opened for.
    pub(super) purpose: Purpose,
    /// Ends the requests for it.
    pub cancellation: Cancellation,
}

impl RemoteObject<'_> {
    /// Opens the source without a cache.
    ///
    /// # Errors
    /// The errors of the store.
    pub fn open(&self) -> Result<Arc<dyn Source>> {
        match self.local()? {
            Some(local) => Ok(local),
            None => Ok(Arc::new(self.object(None)?)),
        }
    }

    /// The local file in which the store keeps the object already, if there is one. If the object is to
    /// be verified, the file is, by a checksum that others left for it.
    ///
    /// # Errors
    /// The errors of the store, which is [prepared](Store::prepare) first, and those of
    /// [`FileSource::verified`].
    pub fn local(&self) -> Result<Option<Arc<dyn Source>>> {
        self.prepare()?;
        let Some(path) = self.store.local(self.uri.key()) else { return Ok(None) };
        let file = FileSource::open(&path)?.pinned_by(self.pin());
        Ok(Some(Arc::new(match self.verify {
            true => file.verified(self.allows_unverified_files)?,
            false => file,
        })))
    }

    /// Opens the object at its store, which must have been [prepared](Self::local). If the object
    /// still has the identity `known`, none of its bytes are sent.
    ///
    /// # Errors
    /// The errors of the store.
    pub fn object(&self, known: Option<ObjectIdentity>) -> Result<ObjectSource> {
        let (store, cancellation) = (Arc::clone(&self.store), &self.cancellation);
        let how = (self.purpose, cancellation);
        ObjectSource::open(self.client, store, self.uri, self.verify, known, how)
    }

    /// The object, assumed to have `identity`, without a request.
    pub fn known(&self, identity: ObjectIdentity) -> ObjectSource {
        ObjectSource::known(self.client, Arc::clone(&self.store), self.uri, identity)
    }

    /// The address of the object's server, if the location does not contain it; else an empty
    /// string.
    pub fn address(&self) -> String {
        self.store.address()
    }

    /// What is compared to notice that the object is replaced.
    pub fn pin(&self) -> PinBy {
        self.client.options.pin()
    }

    /// The value of an environment variable.
    pub fn env(&self, name: &str) -> Option<String> {
        self.client.options.env(name)
    }

    pub(super) fn prepare(&self) -> Result<()> {
        let (client, store) = (Arc::clone(self.client), Arc::clone(&self.store));
        self.client.block_on(&self.cancellation, async move { store.prepare(&client).await })
    }
}
