//! The identity of an object, by which a replacement is detected.

use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use http::{HeaderMap, HeaderValue, header};

/// The identity of an object when it was opened: its length and its validators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectIdentity {
    pub len_bytes: u64,
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl ObjectIdentity {
    /// The identity of an object of `len_bytes`, from the `headers` of a response.
    pub fn of(headers: &HeaderMap, len_bytes: u64) -> Self {
        let header = |name| headers.get(name).cloned();
        let (etag, last_modified) = (header(header::ETAG), header(header::LAST_MODIFIED));
        Self { len_bytes, etag, last_modified }
    }

    /// The identity with these values of [`etag`](Self::etag) and
    /// [`last_modified`](Self::last_modified); `None` if they are not valid header values.
    pub fn from_parts(
        len_bytes: u64,
        etag: Option<&[u8]>,
        last_modified: Option<&[u8]>,
    ) -> Option<Self> {
        let value = |bytes: Option<&[u8]>| bytes.map(HeaderValue::from_bytes).transpose().ok();
        Some(Self { len_bytes, etag: value(etag)?, last_modified: value(last_modified)? })
    }

    /// The `ETag`.
    pub fn etag(&self) -> Option<&[u8]> {
        self.etag.as_ref().map(HeaderValue::as_bytes)
    }

    /// The `ETag`, unless it is weak.
    pub fn strong_etag_bytes(&self) -> Option<&[u8]> {
        self.strong_etag().map(HeaderValue::as_bytes)
    }

    /// The `Last-Modified`.
    pub fn last_modified(&self) -> Option<&[u8]> {
        self.last_modified.as_ref().map(HeaderValue::as_bytes)
    }

    /// Whether the identity distinguishes this object from a replacement of the same length. A weak
    /// ETag does not, as it is the same for objects that are merely equivalent.
    pub fn is_distinctive(&self) -> bool {
        self.strong_etag().is_some() || self.last_modified.is_some()
    }

    /// Makes the server answer "not modified" (304) if the object is unchanged. Only the ETag is
    /// compared: with a time, servers may answer 304 for an older object too.
    pub fn require_changed(&self, headers: &mut HeaderMap) {
        if let Some(etag) = self.strong_etag() {
            headers.insert(header::IF_NONE_MATCH, etag.clone());
        }
    }

    fn strong_etag(&self) -> Option<&HeaderValue> {
        self.etag.as_ref().filter(|etag| !etag.as_bytes().starts_with(b"W/"))
    }

    /// Makes the server refuse the request if the object has changed (RFC 9110, section 13.1).
    pub fn require_unchanged(&self, headers: &mut HeaderMap) {
        // A weak ETag never matches If-Match; it is compared when the response arrives.
        if let Some(etag) = self.strong_etag() {
            headers.insert(header::IF_MATCH, etag.clone());
        } else if let Some(date) = &self.last_modified {
            headers.insert(header::IF_UNMODIFIED_SINCE, date.clone());
        }
    }

    /// Checks that a response belongs to this object. The response has `headers`, and according to
    /// it the object has `total_bytes` bytes.
    ///
    /// # Errors
    /// [`Changed`](ErrorKind::Changed), saying what differs.
    pub fn check(
        &self,
        headers: &HeaderMap,
        total_bytes: Option<u64>,
        location: &Location,
    ) -> Result<()> {
        let differs = |mine: &Option<HeaderValue>, name| match (mine, headers.get(name)) {
            (Some(mine), Some(theirs)) => mine != theirs,
            _ => false,
        };
        let what = if total_bytes.is_some_and(|total| total != self.len_bytes) {
            "its length"
        } else if differs(&self.etag, header::ETAG) {
            "its ETag"
        } else if self.etag.is_none() && differs(&self.last_modified, header::LAST_MODIFIED) {
            "its modification time"
        } else {
            return Ok(());
        };
        Err(changed(location, what))
    }
}

/// The error for an object that was replaced.
pub(super) fn changed(location: &Location, what: &str) -> Error {
    let sentence =
        format!("{location} was replaced while it was read ({what} differs); load it again");
    Error::new(ErrorKind::Changed, sentence)
}
