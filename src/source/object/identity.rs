//! The identity of an object, by which a replacement is detected.
//!
//! Each response has to have the validators with which the object was opened: its length, and its ETag
//! or else its modification time. A validator that is missing from a response does not match. How
//! much is compared is an option ([`PinBy`]).

use crate::error::{Error, ErrorKind, Result, option};
use crate::location::Location;
use crate::options::{PinBy, RemoteOptions};
use http::{HeaderMap, HeaderValue, header};

/// The identity of an object when it was opened: its length and its validators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectIdentity {
    pub len_bytes: u64,
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

/// What differs between an object and a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mismatch {
    Length,
    /// The response does not say how long the object is.
    NoLength,
    Etag,
    /// One of the tags is the weak form of the other.
    WeakEtag,
    Modified,
    /// The response lacks the header that the object was opened with.
    Missing(&'static str),
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

    /// Whether the identity distinguishes this object from a replacement of the same length, as long
    /// as `pin` is compared. A weak ETag does not, as it is the same for objects that are merely
    /// equivalent.
    pub fn is_distinctive(&self, pin: PinBy) -> bool {
        match pin {
            PinBy::Auto => self.strong_etag().is_some() || self.last_modified.is_some(),
            PinBy::Etag => self.strong_etag().is_some(),
            PinBy::Length | PinBy::None => false,
        }
    }

    /// Whether the object has a validator that `pin` compares.
    pub fn has_validator(&self, pin: PinBy) -> bool {
        match pin {
            PinBy::Auto => self.etag.is_some() || self.last_modified.is_some(),
            PinBy::Etag => self.etag.is_some(),
            PinBy::Length | PinBy::None => false,
        }
    }

    /// The length and the validator that `pin` compares, as text.
    pub fn version(&self, pin: PinBy) -> String {
        let validator = match pin {
            PinBy::Auto => self.etag.as_ref().or(self.last_modified.as_ref()),
            PinBy::Etag => self.etag.as_ref(),
            PinBy::Length | PinBy::None => None,
        };
        let validator = validator.map_or(&b"none"[..], HeaderValue::as_bytes);
        let validator = match pin {
            PinBy::Etag => validator.strip_prefix(b"W/").unwrap_or(validator),
            _ => validator,
        };
        format!("{} bytes, validator {}", self.len_bytes, validator.escape_ascii())
    }

    /// Checks that the object at `location` has a validator that is compared, or else that `options`
    /// permit its absence, which is logged.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), naming the remedy.
    pub(super) fn check_pinned(&self, options: &RemoteOptions, location: &Location) -> Result<()> {
        let pin = options.pin();
        if self.len_bytes == 0 || self.has_validator(pin) {
            return Ok(());
        }
        if matches!(pin, PinBy::Auto | PinBy::Etag) && options.unpinned != Some(true) {
            return Err(unpinned(location, pin));
        }
        let by = if pin == PinBy::None { "nothing" } else { "its length alone" };
        tracing::warn!(
            "{location} is pinned by {by}, so a replacement during the load may not be noticed"
        );
        Ok(())
    }

    /// Makes the server answer "not modified" (304) if the object is unchanged. Only the ETag is
    /// compared: with a time, servers may answer 304 for an older object too.
    pub fn require_changed(&self, headers: &mut HeaderMap) {
        if let Some(etag) = self.strong_etag() {
            headers.insert(header::IF_NONE_MATCH, etag.clone());
        }
    }

    /// What differs where the server refuses the precondition of
    /// [`require_unchanged`](Self::require_unchanged).
    pub(super) fn failed_precondition(&self) -> Mismatch {
        if self.etag.is_some() { Mismatch::Etag } else { Mismatch::Modified }
    }

    fn strong_etag(&self) -> Option<&HeaderValue> {
        self.etag.as_ref().filter(|etag| !etag.as_bytes().starts_with(b"W/"))
    }

    /// Makes the server refuse the request if the object has changed (RFC 9110, section 13.1). Where
    /// less than everything is compared, the response is compared when it arrives.
    pub fn require_unchanged(&self, pin: PinBy, headers: &mut HeaderMap) {
        if pin != PinBy::Auto {
            return;
        }
        // A weak ETag never matches If-Match; it is compared when the response arrives.
        if let Some(etag) = self.strong_etag() {
            headers.insert(header::IF_MATCH, etag.clone());
        } else if let Some(date) = self.last_modified.as_ref().filter(|_| self.etag.is_none()) {
            headers.insert(header::IF_UNMODIFIED_SINCE, date.clone());
        }
    }

    /// Checks that a response belongs to this object, as far as `pin` says. The response has
    /// `headers`, and according to it the object has `total_bytes` bytes.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn check(
        &self,
        pin: PinBy,
        headers: &HeaderMap,
        total_bytes: Option<u64>,
    ) -> Result<(), Mismatch> {
        match total_bytes {
            _ if pin == PinBy::None => return Ok(()),
            Some(total) if total != self.len_bytes => return Err(Mismatch::Length),
            None if !self.has_validator(pin) => return Err(Mismatch::NoLength),
            _ => {}
        }
        match (pin, &self.etag, &self.last_modified) {
            (PinBy::Length | PinBy::None, ..) => Ok(()),
            (_, Some(mine), _) => match headers.get(header::ETAG) {
                Some(theirs) if theirs == mine => Ok(()),
                Some(theirs) if opaque(theirs) != opaque(mine) => Err(Mismatch::Etag),
                Some(_) if pin == PinBy::Etag => Ok(()),
                Some(_) => Err(Mismatch::WeakEtag),
                None => Err(Mismatch::Missing("ETag")),
            },
            (PinBy::Auto, None, Some(mine)) => match headers.get(header::LAST_MODIFIED) {
                Some(theirs) if theirs == mine => Ok(()),
                Some(_) => Err(Mismatch::Modified),
                None => Err(Mismatch::Missing("Last-Modified")),
            },
            _ => Ok(()),
        }
    }
}

/// The tag without the mark of weakness.
fn opaque(etag: &HeaderValue) -> &[u8] {
    etag.as_bytes().strip_prefix(b"W/").unwrap_or(etag.as_bytes())
}

impl Mismatch {
    /// Whether a server with another copy of the same object would cause it.
    pub fn may_be_a_copy(&self) -> bool {
        matches!(self, Self::Etag | Self::Modified)
    }

    /// The error of an object that was replaced or cannot be compared.
    pub fn error(&self, location: &Location) -> Error {
        let replaced = |what| {
            format!("{location} was replaced while it was read ({what} differs); load it again")
        };
        let sentence = match self {
            Self::Length => replaced("its length"),
            Self::Etag => replaced("its ETag"),
            Self::Modified => replaced("its modification time"),
            Self::NoLength => format!(
                "the server of {location} does not say how long it is, so a replacement would not \
                 be noticed; load it with {} if nothing writes to it",
                option("pin").set_to("none")
            ),
            Self::WeakEtag => format!(
                "the server of {location} sends its ETag in a strong and in a weak form (W/), as \
                 proxies do that may change bytes; if they do not, load it with {}",
                option("pin").set_to("etag")
            ),
            Self::Missing(header) => format!(
                "the server of {location} sent the header {header} when it was opened and leaves it \
                 out now, so a replacement would not be noticed; load it with {} if nothing \
                 writes to it",
                option("pin").set_to("length")
            ),
        };
        Error::new(ErrorKind::Changed, sentence)
    }

    /// The error of an object of which several servers have copies with different validators.
    pub fn error_of_copies(&self, location: &Location) -> Error {
        let what = match self {
            Self::Modified => "modification times",
            _ => "ETags",
        };
        let sentence = format!(
            "{location} was not replaced, but several servers answer for it and send different \
             {what}, as those do that derive them from their own copy's time; give the copies the \
             same time, or load it with {} if their bytes are the same",
            option("pin").set_to("length")
        );
        Error::new(ErrorKind::Changed, sentence)
    }
}

/// The error of an object that has no validator to be pinned by.
fn unpinned(location: &Location, pin: PinBy) -> Error {
    let missing = match pin {
        PinBy::Etag => "no ETag header",
        _ => "neither an ETag nor a Last-Modified header",
    };
    let sentence = format!(
        "{location} cannot be pinned: its server sends {missing}, so a replacement during the load \
         would not be noticed; configure the server to send one, or load it with {} if nothing \
         writes to it",
        option("unpinned").on()
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    /// A response without the validator of the object was taken for one of the same object, so that
    /// versions were mixed.
    #[test]
    fn a_missing_validator_matches_nothing() {
        const TAG: (&str, &str) = ("etag", "\"a\"");
        const WEAK: (&str, &str) = ("etag", "W/\"a\"");
        const OTHER: (&str, &str) = ("etag", "\"b\"");
        const TIME: (&str, &str) = ("last-modified", "then");
        const LATER: (&str, &str) = ("last-modified", "later");
        type Pairs = &'static [(&'static str, &'static str)];
        type Case = (Pairs, PinBy, Pairs, Option<u64>, Option<Mismatch>);
        let cases: [Case; 19] = [
            (&[TAG], PinBy::Auto, &[TAG], Some(9), None),
            (&[TAG], PinBy::Auto, &[TAG], None, None),
            (&[TAG], PinBy::Auto, &[TAG], Some(8), Some(Mismatch::Length)),
            (&[TAG], PinBy::Auto, &[], Some(9), Some(Mismatch::Missing("ETag"))),
            (&[TAG, TIME], PinBy::Auto, &[TIME], Some(9), Some(Mismatch::Missing("ETag"))),
            (&[TAG, TIME], PinBy::Auto, &[TAG, LATER], Some(9), None),
            (&[TAG], PinBy::Auto, &[OTHER], Some(9), Some(Mismatch::Etag)),
            (&[TAG], PinBy::Auto, &[WEAK], Some(9), Some(Mismatch::WeakEtag)),
            (&[WEAK], PinBy::Auto, &[WEAK], Some(9), None),
            (&[TAG], PinBy::Etag, &[WEAK], Some(9), None),
            (&[TAG], PinBy::Etag, &[OTHER], Some(9), Some(Mismatch::Etag)),
            (&[TIME], PinBy::Auto, &[LATER], Some(9), Some(Mismatch::Modified)),
            (&[TIME], PinBy::Auto, &[], Some(9), Some(Mismatch::Missing("Last-Modified"))),
            (&[TIME], PinBy::Etag, &[LATER], Some(9), None),
            (&[TAG], PinBy::Length, &[OTHER], Some(9), None),
            (&[TAG], PinBy::Length, &[TAG], None, Some(Mismatch::NoLength)),
            (&[], PinBy::Auto, &[], None, Some(Mismatch::NoLength)),
            (&[], PinBy::Auto, &[], Some(8), Some(Mismatch::Length)),
            (&[TAG], PinBy::None, &[OTHER], Some(8), None),
        ];
        for (opened, pin, response, total, expected) in cases {
            let identity = ObjectIdentity::of(&headers(opened), 9);
            let seen = identity.check(pin, &headers(response), total).err();
            assert_eq!(seen, expected, "{opened:?} {pin:?} {response:?} {total:?}");
        }
    }

    #[test]
    fn versions_differ_where_what_is_compared_differs() {
        let version =
            |pairs: &[(&str, &str)], pin| ObjectIdentity::of(&headers(pairs), 9).version(pin);
        let (tag, other, weak) = (("etag", "\"a\""), ("etag", "\"b\""), ("etag", "W/\"a\""));
        let (time, later) = (("last-modified", "then"), ("last-modified", "later"));
        let cases = [
            (PinBy::Auto, vec![tag], vec![other], false),
            (PinBy::Auto, vec![tag, time], vec![tag, later], true),
            (PinBy::Auto, vec![time], vec![later], false),
            (PinBy::Etag, vec![tag], vec![weak], true),
            (PinBy::Etag, vec![time], vec![later], true),
            (PinBy::Length, vec![tag], vec![other], true),
        ];
        for (pin, one, two, same) in cases {
            assert_eq!(version(&one, pin) == version(&two, pin), same, "{pin:?} {one:?} {two:?}");
        }
        let longer = ObjectIdentity::of(&headers(&[tag]), 10).version(PinBy::Auto);
        assert_ne!(longer, version(&[tag], PinBy::Auto));
    }
}
