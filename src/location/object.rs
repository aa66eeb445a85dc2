//! Locations of objects: `scheme://container/key`.
//!
//! | scheme | container | key |
//! | --- | --- | --- |
//! | `http`, `https` | `[user:password@]host[:port]` | path and query, percent-encoded as given |
//! | `s3`, `gs` | bucket; for `s3` also the ARN of an access point | as given, never decoded |
//! | `az` | container, in the account that the environment names | as given |
//! | `hf` | `[datasets/\|spaces/]owner/repo[@revision]`, `/` in a revision written `%2F` | path in the repository, as given |
//! | `anyscale` | empty | path below `$ANYSCALE_ARTIFACT_STORAGE` |
//!
//! The key of a web server's object has a path and a query. All other keys are paths, whatever
//! characters they hold.

use super::escape;
use crate::error::{Error, Escaped};
use std::fmt;

/// How an object is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `http://`
    Http,
    /// `https://`
    Https,
    /// `s3://`
    S3,
    /// `gs://`
    Gs,
    /// `az://`
    Az,
    /// `hf://`
    Hf,
    /// `anyscale://`
    Anyscale,
}

impl Scheme {
    /// All schemes.
    pub const ALL: [Self; 7] =
        [Self::Http, Self::Https, Self::S3, Self::Gs, Self::Az, Self::Hf, Self::Anyscale];

    /// The word before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
            Self::Hf => "hf",
            Self::Anyscale => "anyscale",
        }
    }

    /// The feature of the crate without which objects of the scheme cannot be opened.
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::Http | Self::Https | Self::Anyscale => "http",
            Self::S3 => "s3",
            Self::Gs => "gcs",
            Self::Az => "azure",
            Self::Hf => "hub",
        }
    }

    /// The error for a location of this scheme in a build without its [feature](Self::feature).
    pub(crate) fn left_out(self) -> Error {
        Error::needs_feature(format_args!("{}://", self.as_str()), self.feature())
    }
}

/// An object, or a directory of objects: `scheme://container/key`.
///
/// ```
/// use ringload::{Location, Scheme};
///
/// let Location::Object(uri) = Location::parse("s3://bucket/llama-8b/").unwrap() else { panic!() };
/// assert_eq!((uri.scheme(), uri.to_string()), (Scheme::S3, "s3://bucket/llama-8b/".into()));
/// ```
///
/// `Display` and `Debug` omit the parts that may be secret: a user and password, and the query,
/// which may hold a signature.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectUri {
    scheme: Scheme,
    container: String,
    key: String,
}

impl ObjectUri {
    /// The object `key` in `container`.
    pub(crate) fn new(scheme: Scheme, container: &str, key: &str) -> Self {
        Self { scheme, container: container.to_owned(), key: key.to_owned() }
    }

    /// How the object is accessed.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, bucket, container or repository. For `http` and `https` it may contain a password.
    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    /// The name within the container. For `http` and `https` it may contain a signature.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The key without the query.
    pub(crate) fn path(&self) -> &str {
        self.split_key().0
    }

    /// The part of the path after its last `/`.
    pub(crate) fn name(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// Whether the URI is written as a directory: it is a container, or its path ends in `/`.
    pub(crate) fn is_directory(&self) -> bool {
        self.name().is_empty()
    }

    /// The same URI, written as a directory.
    pub(crate) fn as_directory(&self) -> Self {
        let (path, query) = self.split_key();
        let slash = if self.is_directory() { "" } else { "/" };
        self.with_key(format!("{path}{slash}{query}"))
    }

    /// The directory that holds the object; for a directory, the directory itself.
    pub(crate) fn parent(&self) -> Self {
        self.join("")
    }

    /// The object `name` in the [parent](Self::parent) directory. `name` may hold slashes
    /// (`sub/name`). A URL keeps its query, since a query that grants access may do so for the
    /// neighbouring objects too.
    pub(crate) fn join(&self, name: &str) -> Self {
        let (path, query) = self.split_key();
        let directory = &path[..path.len() - self.name().len()];
        let key = match self.is_url() {
            true => format!("{directory}{}{query}", escape::path(name)),
            false => format!("{directory}{name}"),
        };
        self.with_key(key)
    }

    /// The same container with another key.
    pub(crate) fn with_key(&self, key: impl Into<String>) -> Self {
        Self { key: key.into(), ..self.clone() }
    }

    /// Splits the key into path and query; the query keeps its `?`.
    fn split_key(&self) -> (&str, &str) {
        let path_bytes = match self.is_url() {
            true => self.key.find('?').unwrap_or(self.key.len()),
            false => self.key.len(),
        };
        self.key.split_at(path_bytes)
    }

    /// Whether the key is part of a URL: percent-encoded, and possibly with a query.
    pub(crate) fn is_url(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https)
    }

    /// The URI without user, password and query.
    pub(super) fn without_secrets(&self) -> String {
        let scheme = self.scheme.as_str();
        let (path, query) = self.split_key();
        let container = match self.is_url() {
            true => self.container.rsplit('@').next().unwrap_or_default(),
            false => &self.container,
        };
        // Without a container the key follows the scheme.
        let slash = if container.is_empty() { "" } else { "/" };
        let query = if query.is_empty() { "" } else { "?..." };
        format!("{scheme}://{container}{slash}{path}{query}")
    }
}

impl fmt::Display for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.without_secrets()).fmt(f)
    }
}

impl fmt::Debug for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
