//! Opening sources, local and remote, for one loader.

use super::http::Client;
use super::object::ObjectSource;
use super::store::{Store, Stores, anyscale};
use super::{FileSource, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri, Scheme};
use crate::options::RemoteOptions;
use std::sync::{Arc, OnceLock};

/// Opens sources. The client for remote ones is made when the first of them is opened: certificates,
/// credentials and threads cost nothing where only files are read.
///
/// Repositories of the Hub are those of one opener, which sees each of them at one commit: the
/// loader's opener is asked for another one [for each checkpoint](Self::anew).
#[derive(Debug, Default)]
pub(crate) struct Opener {
    pub options: RemoteOptions,
    client: Arc<OnceLock<Arc<Client>>>,
    repositories: Stores,
    /// Whether files may be opened although bytes are to be verified and nothing is kept to verify
    /// theirs against.
    takes_files_unverified: bool,
}

impl Opener {
    /// An opener of remote sources with `options`.
    pub fn new(options: RemoteOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// An opener with the same client, which finds out anew what may have changed since.
    pub fn anew(&self) -> Self {
        let (options, client) = (self.options.clone(), Arc::clone(&self.client));
        let takes_files_unverified = self.takes_files_unverified;
        Self { options, client, repositories: Stores::default(), takes_files_unverified }
    }

    /// The same, for tensors that all go to cards: there, verifying covers the way from host memory
    /// onto the card, which has its use for files, too.
    pub fn for_cards(self, only_cards: bool) -> Self {
        Self { takes_files_unverified: only_cards, ..self }
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
        let (client, store) = self.prepared(uri)?;
        match store.local(uri.key()) {
            // None where bytes are to be verified.
            Some(path) => Ok(Arc::new(FileSource::open(&path)?)),
            None => Ok(Arc::new(ObjectSource::open(client, store, uri, verify)?)),
        }
    }

    /// The names of the objects directly in `directory`, relative to it; `None` where its server
    /// cannot list.
    ///
    /// # Errors
    /// What the store says.
    pub fn list(&self, directory: &ObjectUri) -> Result<Option<Vec<String>>> {
        let uri = self.actual(directory)?;
        let (client, store) = self.prepared(&uri)?;
        let asking = Arc::clone(client);
        client.block_on(async move { store.list(&asking, uri.key()).await })
    }

    /// Where `uri` really is: `anyscale://` stands for a place in another store.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where that place is not known.
    pub fn actual(&self, uri: &ObjectUri) -> Result<ObjectUri> {
        anyscale::actual(&self.options, uri)
    }

    /// The client, and the store of `uri`, ready to be asked.
    ///
    /// # Errors
    /// What the store says.
    pub fn prepared(&self, uri: &ObjectUri) -> Result<(&Arc<Client>, Arc<dyn Store>)> {
        let client = self.client();
        let store = match uri.scheme() {
            Scheme::Hf => self.repositories.of(client, uri)?,
            _ => client.store(uri)?,
        };
        let (asking, preparing) = (Arc::clone(client), Arc::clone(&store));
        client.block_on(async move { preparing.prepare(&asking).await })?;
        Ok((client, store))
    }

    /// The client, made if need be.
    pub fn client(&self) -> &Arc<Client> {
        self.client.get_or_init(|| Client::new(self.options.clone()))
    }
}
