//! What an object was when it was opened, and whether an answer still comes from that.

use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use http::{HeaderMap, HeaderValue, header};

/// What an object was when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub len_bytes: u64,
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Identity {
    /// Of the object of `len_bytes` that was answered with `headers`.
    pub fn of(headers: &HeaderMap, len_bytes: u64) -> Self {
        let header = |name| headers.get(name).cloned();
        let (etag, last_modified) = (header(header::ETAG), header(header::LAST_MODIFIED));
        Self { len_bytes, etag, last_modified }
    }

    /// That of an object of `len_bytes` with these two headers, as it was told by
    /// [`etag`](Self::etag) and [`last_modified`](Self::last_modified); `None` for what no header holds.
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

    /// Whether it tells this object from one of the same length that takes its place: a weak ETag
    /// does not, as it stays the same for what is merely equivalent.
    pub fn is_telling(&self) -> bool {
        self.strong_etag().is_some() || self.last_modified.is_some()
    }

    /// Makes the server answer "not modified" (304) if the object is still this one. Only by the
    /// ETag: by time, servers may say so of an object that is older.
    pub fn unless_same(&self, headers: &mut HeaderMap) {
        if let Some(etag) = self.strong_etag() {
            headers.insert(header::IF_NONE_MATCH, etag.clone());
        }
    }

    fn strong_etag(&self) -> Option<&HeaderValue> {
        self.etag.as_ref().filter(|etag| !etag.as_bytes().starts_with(b"W/"))
    }

    /// Makes the server refuse if the object is another one by now (RFC 9110, section 13.1).
    pub fn pin(&self, headers: &mut HeaderMap) {
        match (self.strong_etag(), &self.last_modified) {
            // A weak validator never matches If-Match; it is compared when the answer is there.
            (Some(etag), _) => {
                headers.insert(header::IF_MATCH, etag.clone());
            }
            (_, Some(date)) => {
                headers.insert(header::IF_UNMODIFIED_SINCE, date.clone());
            }
            _ => {}
        }
    }

    /// Checks that an answer with `headers`, which says that the object has `total_bytes`, comes
    /// from this object.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`], saying what differs.
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

/// The error of an object that was replaced.
pub(super) fn changed(location: &Location, what: &str) -> Error {
    let sentence =
        format!("{location} was replaced while it was read ({what} differs); load it again");
    Error::new(ErrorKind::Changed, sentence)
}
