//! Locations of objects: `scheme://container/key`.
//!
//! | scheme | container | key |
//! | --- | --- | --- |
//! | `http`, `https` | `[user:password@]host[:port]` | path and query, percent-encoded as given |
//! | `s3`, `gs` | bucket | as it is, never decoded |
//! | `az` | container, of the account in the environment | as it is |
//! | `hf` | `[datasets/\|spaces/]owner/repo[@revision]`, `/` in a revision written `%2F` | path in the repository, as it is |
//! | `anyscale` | empty | path below `$ANYSCALE_ARTIFACT_STORAGE` |
//!
//! Only the key of a web server's object has two parts, its path and its query; all others are
//! paths, whatever characters they hold.

use super::escape;
use std::fmt;

/// How an object is reached.
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
    /// All of them.
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
}

/// An object, or what acts as a directory of objects: `scheme://container/key`.
///
/// What may be secret (a user and password, a query with a signature) is neither in its `Display`
/// nor in its `Debug`.
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

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host, bucket, container or repository. May hold a password, for `http` and `https`.
    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    /// What it is called there. May hold a signature, for `http` and `https`.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The key without the query of a URL.
    pub(crate) fn path(&self) -> &str {
        self.split_key().0
    }

    /// What comes behind the last `/` of the path.
    pub(crate) fn name(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is written as a directory: the container itself, or ending in `/`.
    pub(crate) fn is_directory(&self) -> bool {
        self.name().is_empty()
    }

    /// Itself, written as a directory.
    pub(crate) fn as_directory(&self) -> Self {
        let (path, query) = self.split_key();
        let slash = if self.is_directory() { "" } else { "/" };
        self.with_key(format!("{path}{slash}{query}"))
    }

    /// The directory that it is in; itself, if it is written as one.
    pub(crate) fn parent(&self) -> Self {
        let (path, query) = self.split_key();
        let directory = &path[..path.len() - self.name().len()];
        self.with_key(format!("{directory}{query}"))
    }

    /// The object `name` in its [parent](Self::parent): beside an object, in a directory. `name` may
    /// lead further down (`sub/name`). A URL keeps its query: where one gives access, it may to
    /// what lies beside, too.
    pub(crate) fn join(&self, name: &str) -> Self {
        let (path, query) = self.split_key();
        let directory = &path[..path.len() - self.name().len()];
        let key = match self.is_url() {
            true => format!("{directory}{}{query}", escape::path(name)),
            false => format!("{directory}{name}"),
        };
        self.with_key(key)
    }

    /// The same with another key.
    pub(crate) fn with_key(&self, key: impl Into<String>) -> Self {
        Self { key: key.into(), ..self.clone() }
    }

    /// Path and query, the query with its `?`.
    fn split_key(&self) -> (&str, &str) {
        let path_bytes = match self.is_url() {
            true => self.key.find('?').unwrap_or(self.key.len()),
            false => self.key.len(),
        };
        self.key.split_at(path_bytes)
    }

    /// Whether it is the address of a web server's object: escaped, and perhaps with a query.
    pub(crate) fn is_url(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https)
    }
}

impl fmt::Display for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        let (path, query) = self.split_key();
        let container = match self.is_url() {
            true => self.container.rsplit('@').next().unwrap_or_default(),
            false => &self.container,
        };
        // Without a container, what follows the scheme is the key.
        let slash = if container.is_empty() { "" } else { "/" };
        let query = if query.is_empty() { "" } else { "?..." };
        write!(f, "{scheme}://{container}{slash}{path}{query}")
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
