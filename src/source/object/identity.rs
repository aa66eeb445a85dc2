//! What an object was when it was opened, and whether an answer still comes from that.

use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use http::{HeaderMap, HeaderValue, header};

/// What an object was when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
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

    /// Makes the server refuse if the object is another one by now (RFC 9110, section 13.1).
    pub fn pin(&self, headers: &mut HeaderMap) {
        match (&self.etag, &self.last_modified) {
            // A weak validator never matches If-Match; it is compared when the answer is there.
            (Some(etag), _) if !etag.as_bytes().starts_with(b"W/") => {
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
