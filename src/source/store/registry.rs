//! The stores in use, by the locations of their objects.

#[cfg(feature = "azure")]
use super::azure;
#[cfg(feature = "gcs")]
use super::gcs;
#[cfg(feature = "hub")]
use super::hub;
#[cfg(feature = "s3")]
use super::s3;
use super::traits::Store;
use super::web;
use crate::error::Result;
use crate::location::{ObjectUri, Scheme};
use crate::source::http::Client;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The stores in use, each opened once, so that all its objects share its credentials.
#[derive(Default)]
pub(crate) struct Stores {
    open: Mutex<HashMap<(Scheme, String), Arc<dyn Store>>>,
    #[cfg(feature = "s3")]
    aws: Arc<s3::AwsCredentials>,
}

impl Stores {
    /// The store that holds `uri`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an unusable option or variable;
    /// [`Unsupported`](ErrorKind::Unsupported) for a scheme that is not part of this build.
    pub fn of(&self, client: &Client, uri: &ObjectUri) -> Result<Arc<dyn Store>> {
        let mut open = self.open.lock();
        let key = (uri.scheme(), uri.container().to_owned());
        if let Some(store) = open.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = self.make(client, uri)?;
        open.insert(key, Arc::clone(&store));
        Ok(store)
    }

    /// Replaces the store that holds `uri`.
    #[cfg(test)]
    pub fn replace(&self, uri: &ObjectUri, store: Arc<dyn Store>) {
        let key = (uri.scheme(), uri.container().to_owned());
        self.open.lock().insert(key, store);
    }

    fn make(&self, client: &Client, uri: &ObjectUri) -> Result<Arc<dyn Store>> {
        Ok(match uri.scheme() {
            Scheme::Http | Scheme::Https => Arc::new(web::Web::new(uri)),
            #[cfg(feature = "hub")]
            Scheme::Hf => Arc::new(hub::Hub::new(&client.options, uri)?),
            #[cfg(feature = "s3")]
            Scheme::S3 => {
                let bucket = s3::S3Bucket::new(&client.options, uri, &self.aws)?;
                if let Some(bundle) = &bucket.ca_bundle {
                    client.trust_also(bundle);
                }
                Arc::new(bucket)
            }
            #[cfg(feature = "gcs")]
            Scheme::Gs => Arc::new(gcs::Gcs::new(&client.options, uri)?),
            #[cfg(feature = "azure")]
            Scheme::Az => Arc::new(azure::Azure::new(&client.options, uri)?),
            scheme => return Err(scheme.left_out()),
        })
    }
}
