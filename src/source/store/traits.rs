//! The interface of stores, in addition to the policy for their requests.

pub(crate) use crate::source::list_entry::{ListDepth, ListEntry};
pub(crate) use crate::source::verify::Checksum;

use crate::error::Result;
use crate::source::http::{Client, RequestPolicy};
use async_trait::async_trait;
use http::Uri;
use std::path::PathBuf;
use std::sync::Arc;

/// A container of objects: a bucket, a repository, or a web server.
#[async_trait]
pub(crate) trait Store: RequestPolicy {
    /// The name of the kind of store: `http`, `s3`, `gcs`, `azure` or `hub`.
    fn kind(&self) -> &'static str;

    /// The URL of the object `key`. The URL is made anew for every attempt, since it may depend on
    /// something that the store learnt from an error response (the bucket's region).
    ///
    /// # Errors
    /// When `key` cannot be part of a URL.
    fn url(&self, key: &str) -> Result<Uri>;

    /// Obtains the information that all requests depend on (the commit of a revision). Awaited
    /// before any other request for an object.
    async fn prepare(&self, _client: &Arc<Client>) -> Result<()> {
        Ok(())
    }

    /// The address of the server, if it does not follow from the location: equal locations on
    /// different servers are different objects. Otherwise an empty string.
    fn address(&self) -> String {
        String::new()
    }

    /// The path of a local file that holds the object `key`, if there is one.
    fn local(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    /// The objects in the directory `key` (`""`, or ending in `/`), to the given depth. `None` where
    /// the server cannot list.
    async fn entries(
        &self,
        _client: &Arc<Client>,
        _key: &str,
        _depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        Ok(None)
    }

    /// The names of the objects directly in the directory `key`; otherwise like
    /// [`entries`](Self::entries).
    async fn list(&self, client: &Arc<Client>, key: &str) -> Result<Option<Vec<String>>> {
        let objects = self.entries(client, key, ListDepth::Directory).await?;
        Ok(objects.map(|objects| objects.into_iter().map(|object| object.name).collect()))
    }

    /// The server's checksum of the whole object, if it has one.
    async fn checksum(&self, _client: &Arc<Client>, _key: &str) -> Result<Option<Checksum>> {
        Ok(None)
    }
}
