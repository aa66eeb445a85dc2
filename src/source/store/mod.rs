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
mod registry;
#[cfg(feature = "s3")]
mod s3;
mod said;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod signing;
mod traits;
mod web;

pub(crate) use registry::Stores;
pub(crate) use traits::{Checksum, ListDepth, ListEntry, Store};
