//! Stores: what differs between S3, GCS, Azure, the Hugging Face Hub and a plain web server.
//!
//! A [`Store`] knows how to name an object by URL, how to sign a request for it, what the server's
//! refusals mean, how to list a directory, and which checksum the server knows. Everything else
//! (connections, retries, ranges, redirects) is `source::http`, once for all of them.

pub(crate) mod anyscale;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod gcs;
mod hub;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod keyring;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod metadata;
pub(in crate::source) mod parts;
#[cfg(feature = "s3")]
mod s3;
mod said;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod signing;
mod web;

use super::http::{Client, Refusal};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{ObjectUri, Scheme};
use http::Uri;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// A future that any thread may drive.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One place of objects: a bucket, a container, a repository, a web server.
pub(crate) trait Store: Send + Sync {
    /// What it is, in a word: `http`, `s3`, `gcs`, `azure`, `hub`.
    fn kind(&self) -> &'static str;

    /// The URL of the object `key`. Asked again for every attempt: it may depend on what the store
    /// learnt from a refusal (the bucket's region).
    ///
    /// # Errors
    /// When `key` cannot stand in a URL.
    fn url(&self, key: &str) -> Result<Uri>;

    /// Signs the request, immediately before it is sent: every attempt has a fresh signature.
    /// `now` is the time by the server's clock.
    fn authorize<'a>(
        &'a self,
        client: &'a Arc<Client>,
        head: &'a mut http::request::Parts,
        now: SystemTime,
    ) -> BoxFuture<'a, Result<()>>;

    /// What a refusal means. What is not special to the store is [`Refusal::usual`].
    fn judge(&self, refusal: &Refusal) -> Verdict {
        refusal.usual()
    }

    /// Forgets credentials that the server says have expired.
    fn renew(&self) {}

    /// Whether redirects are followed. Not where every request is signed for its own URL: there the
    /// store learns from them.
    fn follows_redirects(&self) -> bool {
        true
    }

    /// Finds out what all requests depend on; awaited before anything else of an object is asked.
    fn prepare<'a>(&'a self, _client: &'a Arc<Client>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// What tells its place from others that locations call the same: the address of the server,
    /// where that is set apart. Empty where the location says it all.
    fn place(&self) -> String {
        String::new()
    }

    /// A local file that holds the object `key` already.
    fn local(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    /// The objects in the directory `key` (`""`, or ending in `/`), as deep as `depth` says. `None` where
    /// the server cannot list.
    fn entries<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
        depth: Depth,
    ) -> BoxFuture<'a, Result<Option<Vec<Entry>>>>;

    /// The names of the objects directly in the directory `key`, as [`entries`](Self::entries) has them.
    fn list<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<String>>>> {
        Box::pin(async move {
            let entries = self.entries(client, key, Depth::Directory).await?;
            Ok(entries.map(|entries| entries.into_iter().map(|entry| entry.name).collect()))
        })
    }

    /// The checksum of the whole object that the server vouches for, if it knows one.
    fn checksum<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Checksum>>>;
}

/// How much of a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What is directly in it.
    Directory,
    /// All that is below it.
    Tree,
}

/// An object in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the directory.
    pub name: String,
    pub len_bytes: u64,
}

/// What follows from a refusal. Only stores with credentials make use of all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask again later; `throttled` means that the server wants fewer requests.
    Retry {
        /// Whether the server asked for less.
        throttled: bool,
    },
    /// The store has learnt something (a region): ask again at once. Granted once for each word.
    #[cfg_attr(not(any(feature = "s3", feature = "gcs")), allow(dead_code))]
    Again(&'static str),
    /// The clocks differ: correct by the answer's `Date` and ask again, once.
    #[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
    Skewed,
    /// The credentials have expired: renew them and ask again, once.
    #[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
    Expired,
    /// The end. The sentence says what the server said and what to do; the location is put before.
    Fail(ErrorKind, String),
}

#[cfg(all(test, any(feature = "gcs", feature = "azure")))]
impl Verdict {
    /// The kind and sentence of an end; panics on anything else.
    #[track_caller]
    pub fn failed(self) -> (ErrorKind, String) {
        match self {
            Self::Fail(kind, sentence) => (kind, sentence),
            other => panic!("{other:?}"),
        }
    }
}

/// A checksum of a whole object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// CRC-64/NVME.
    Crc64Nvme(u64),
    /// CRC-32C (Castagnoli; iSCSI).
    Crc32c(u32),
    /// CRC-32 (ISO-HDLC; zlib).
    Crc32(u32),
    /// SHA-256.
    Sha256([u8; 32]),
}

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
