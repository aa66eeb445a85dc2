//! What may stand before the objects of stores, and what it is given of them.
//!
//! A [`CacheLayer`] (the local file cache) is asked for the source of every object that is opened. It gets
//! a [`Remote`], with which the object can be asked for at its store: not at all, by one conditional
//! request, or as if there were no front.

use super::http::Client;
use super::object::{Identity, ObjectSource};
use super::store::Store;
use super::{FileSource, Source};
use crate::error::Result;
use crate::location::ObjectUri;
use std::fmt;
use std::sync::Arc;

/// Stands before the objects of stores.
pub(crate) trait CacheLayer: fmt::Debug + Send + Sync {
    /// The source of the object that `remote` leads to.
    ///
    /// # Errors
    /// What its store says, where it has to be asked.
    fn open(&self, remote: &Remote<'_>) -> Result<Arc<dyn Source>>;

    /// The names that `ask` gives for what is directly in the directory that `remote` leads to.
    ///
    /// # Errors
    /// Those of `ask`, where that has to be called.
    fn list(
        &self,
        remote: &Remote<'_>,
        ask: &dyn Fn() -> Result<Option<Vec<String>>>,
    ) -> Result<Option<Vec<String>>>;
}

/// An object at its store, not asked for yet.
pub(crate) struct Remote<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) store: Arc<dyn Store>,
    /// Where it really is.
    pub uri: &'a ObjectUri,
    /// Whether its bytes are to be checked against its checksum.
    pub verify: bool,
}

impl Remote<'_> {
    /// Its source, as if nothing stood before it.
    ///
    /// # Errors
    /// What its store says.
    pub fn open(&self) -> Result<Arc<dyn Source>> {
        match self.local()? {
            Some(local) => Ok(local),
            None => Ok(Arc::new(self.object(None)?)),
        }
    }

    /// What its store keeps of it on this machine already.
    ///
    /// # Errors
    /// What its store says, which is asked for what all its objects depend on.
    pub fn local(&self) -> Result<Option<Arc<dyn Source>>> {
        self.prepare()?;
        // None where bytes are to be verified.
        match self.store.local(self.uri.key()) {
            Some(path) => Ok(Some(Arc::new(FileSource::open(&path)?))),
            None => Ok(None),
        }
    }

    /// Opens it at its store, which must have been [prepared](Self::local). Where it is still what it
    /// is `known` as, that is all that its store says.
    ///
    /// # Errors
    /// What its store says.
    pub fn object(&self, known: Option<Identity>) -> Result<ObjectSource> {
        ObjectSource::open(self.client, Arc::clone(&self.store), self.uri, self.verify, known)
    }

    /// It, known as `identity`: nobody is asked.
    pub fn known(&self, identity: Identity) -> ObjectSource {
        ObjectSource::known(self.client, Arc::clone(&self.store), self.uri, identity)
    }

    /// The address of the object's server, where the location does not contain it; else empty.
    pub fn address(&self) -> String {
        self.store.address()
    }

    /// Looks a variable up.
    pub fn env(&self, name: &str) -> Option<String> {
        self.client.options.env(name)
    }

    pub(super) fn prepare(&self) -> Result<()> {
        let (client, store) = (Arc::clone(self.client), Arc::clone(&self.store));
        self.client.block_on(async move { store.prepare(&client).await })
    }
}
