//! The stores that are in use, found by the location of an object.

#[cfg(feature = "azure")]
use super::azure;
#[cfg(feature = "gcs")]
use super::gcs;
#[cfg(feature = "s3")]
use super::s3;
use super::traits::Store;
use super::{hub, web};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{ObjectUri, Scheme};
use crate::source::http::Client;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The stores of a client or an opener, each opened once: their credentials are shared by all their objects.
#[derive(Default)]
pub(crate) struct Stores {
    open: Mutex<HashMap<(Scheme, String), Arc<dyn Store>>>,
    #[cfg(feature = "s3")]
    s3: s3::Shared,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}

impl Stores {
    /// The store that `uri` is in.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where an option or variable cannot be used;
    /// [`Unsupported`](ErrorKind::Unsupported) for a scheme that this build was made without.
    pub fn of(&self, client: &Client, uri: &ObjectUri) -> Result<Arc<dyn Store>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (uri.scheme(), uri.container().to_owned());
        if let Some(store) = open.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = self.make(client, uri)?;
        open.insert(key, Arc::clone(&store));
        Ok(store)
    }

    /// Puts a store in the place of the one that `uri` is in.
    #[cfg(test)]
    pub fn replace(&self, uri: &ObjectUri, store: Arc<dyn Store>) {
        let key = (uri.scheme(), uri.container().to_owned());
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, store);
    }

    #[cfg_attr(
        not(any(feature = "s3", feature = "gcs", feature = "azure")),
        allow(unused_variables)
    )]
    fn make(&self, client: &Client, uri: &ObjectUri) -> Result<Arc<dyn Store>> {
        match uri.scheme() {
            Scheme::Http | Scheme::Https => Ok(Arc::new(web::Web::new(uri)?)),
            Scheme::Hf => Ok(Arc::new(hub::Hub::new(&client.options, uri)?)),
            #[cfg(feature = "s3")]
            Scheme::S3 => Ok(Arc::new(s3::S3::new(&client.options, uri, &self.s3)?)),
            #[cfg(feature = "gcs")]
            Scheme::Gs => Ok(Arc::new(gcs::Gcs::new(&client.options, uri)?)),
            #[cfg(feature = "azure")]
            Scheme::Az => Ok(Arc::new(azure::Azure::new(&client.options, uri)?)),
            scheme => {
                let scheme = scheme.as_str();
                let sentence = format!("this build of ringload was made without {scheme}://");
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
        }
    }
}
