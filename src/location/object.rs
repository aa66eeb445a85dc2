//! Locations of objects: `scheme://container/key`.
//!
//! | scheme | container | key |
//! | --- | --- | --- |
//! | `http`, `https` | `[user:password@]host[:port]` | path and query, percent-encoded as given |
//! | `s3`, `gs` | bucket | as it is, never decoded |
//! | `az` | container, of the account in the environment | as it is |
//! | `hf` | `owner/repo[@revision]` | path in the repository |
//! | `anyscale` | empty | path below `$ANYSCALE_ARTIFACT_STORAGE` |

use crate::error::{Error, ErrorKind, Result};
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

/// An object, or what acts as a directory of objects. See the [module's head](self).
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

    /// Reads what is behind `scheme://`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the container is missing.
    pub(super) fn parse(scheme: Scheme, rest: &str) -> Result<Self> {
        let (container, key) = rest.split_once('/').unwrap_or((rest, ""));
        if container.is_empty() {
            let scheme = scheme.as_str();
            let sentence = format!("a {scheme}:// location names no container");
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        Ok(Self::new(scheme, container, key))
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

    /// The same with another key.
    pub(crate) fn with_key(&self, key: impl Into<String>) -> Self {
        Self { key: key.into(), ..self.clone() }
    }
}

impl fmt::Display for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = self.container.rsplit('@').next().unwrap_or_default();
        let (key, query) = match self.key.split_once('?') {
            Some((path, _)) if matches!(self.scheme, Scheme::Http | Scheme::Https) => {
                (path, "?...")
            }
            _ => (self.key.as_str(), ""),
        };
        write!(f, "{}://{container}/{key}{query}", self.scheme.as_str())
    }
}

impl fmt::Debug for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
