//! The stores: S3, GCS, Azure, the Hugging Face Hub, and plain web servers.
//!
//! A [`Store`] makes the URL of an object, authorizes requests, interprets error responses, lists a
//! directory, and knows the server's checksum of an object. Connections, retries, ranges and
//! redirects are the same for all stores and are in `source::http`.
//!
//! ```text
//! traits            what a store provides          registry           the stores in use
//! requests          parts of requests              listing            the pages of a listing
//! error_body        errors as servers report them  credential_cache   credentials, renewed in time
//! reqsign_context   environment for reqsign        metadata           metadata servers of clouds
//! ```

pub(crate) mod anyscale;
#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod credential_cache;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "hub")]
mod hub;
mod listing;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod metadata;
mod registry;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod reqsign_context;
pub(in crate::source) mod requests;
#[cfg(feature = "s3")]
mod s3;
mod traits;
mod web;

pub(crate) use registry::Stores;
pub(crate) use traits::Store;
