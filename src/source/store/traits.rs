//! What every store provides beyond the policy for its requests.

use crate::error::Result;
use crate::source::http::{BoxFuture, Client, RequestPolicy};
use http::Uri;
use std::path::PathBuf;
use std::sync::Arc;

/// One place of objects: a bucket, a container, a repository, a web server.
pub(crate) trait Store: RequestPolicy {
    /// What it is, in a word: `http`, `s3`, `gcs`, `azure`, `hub`.
    fn kind(&self) -> &'static str;

    /// The URL of the object `key`. Asked again for every attempt: it may depend on what the store
    /// learnt from a refusal (the bucket's region).
    ///
    /// # Errors
    /// When `key` cannot stand in a URL.
    fn url(&self, key: &str) -> Result<Uri>;

    /// Finds out what all requests depend on; awaited before anything else of an object is asked.
    fn prepare<'a>(&'a self, _client: &'a Arc<Client>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// What tells its place from others that locations call the same: the address of the server,
    /// where that is set apart. Empty where the location says it all.
    fn address(&self) -> String {
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
        depth: ListDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<ListEntry>>>>;

    /// The names of the objects directly in the directory `key`, as [`entries`](Self::entries) has them.
    fn list<'a>(
        &'a self,
        client: &'a Arc<Client>,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<String>>>> {
        Box::pin(async move {
            let entries = self.entries(client, key, ListDepth::Directory).await?;
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
pub(crate) enum ListDepth {
    /// What is directly in it.
    Directory,
    /// All that is below it.
    Tree,
}

/// An object in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListEntry {
    /// Relative to the directory.
    pub name: String,
    pub len_bytes: u64,
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
