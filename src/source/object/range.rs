//! Asking for a range, and what an answer to that has to look like (RFC 9110, section 14).

use crate::error::ErrorKind;
use crate::source::http::{Broken, Failure, Origin};
use crate::source::store::parts::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header};

/// The `Content-Range` of an answer: bytes `first` to `last`, both included, of `total_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub first: u64,
    pub last: u64,
    pub total_bytes: Option<u64>,
}

impl ContentRange {
    /// The one among `headers`, if it is there and makes sense.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (range, total) = parts(headers)?;
        let (first, last) = range.split_once('-')?;
        let total_bytes = match total {
            "*" => None,
            number => Some(number.parse().ok()?),
        };
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && total_bytes.is_none_or(|total: u64| last < total)).then_some(Self {
            first,
            last,
            total_bytes,
        })
    }

    /// How many bytes it has.
    pub fn len_bytes(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// The length that a refusal of a range gives (`bytes */1234`).
pub(super) fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
    match parts(headers)? {
        ("*", total) => total.parse().ok(),
        _ => None,
    }
}

fn parts(headers: &HeaderMap) -> Option<(&str, &str)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    unit.eq_ignore_ascii_case("bytes").then_some((range, total))
}

/// The request for `len` bytes (at least one) of `uri` from `offset`.
pub(super) fn request(uri: Uri, offset: u64, len: u64) -> Request<Bytes> {
    let mut request = get(uri);
    let range = format!("bytes={offset}-{}", offset + (len - 1));
    if let Ok(range) = HeaderValue::try_from(range) {
        request.headers_mut().insert(header::RANGE, range);
    }
    request
}

/// Refuses a body that would have to be decoded first: its bytes are not the object's.
pub(super) fn refuse_encoding(headers: &HeaderMap, origin: &Origin) -> Result<(), Failure> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let sentence = format!(
                "{} sends the object encoded ({encoding:?}) although it was asked not to; store it \
                 without a Content-Encoding",
                origin.as_str()
            );
            Err(unsupported(sentence))
        }
        _ => Ok(()),
    }
}

/// An answer with other bytes than were asked for. Seen from caches in between; asked once more.
pub(super) fn wrong_range(origin: &Origin) -> Failure {
    let sentence = format!(
        "{} answers with another range than it was asked for; is a broken cache or proxy in between?",
        origin.as_str()
    );
    Broken { attempts_max: Some(3), ..Broken::passing("wrong range", sentence) }.into()
}

/// A server that sends everything, whatever it is asked for.
pub(super) fn no_ranges(origin: &Origin) -> Failure {
    let sentence = format!(
        "{} ignores the Range header and sends the whole object; serve it from a server that \
         supports range requests (nginx and every object store do), or download it first",
        origin.as_str()
    );
    unsupported(sentence)
}

fn unsupported(sentence: String) -> Failure {
    let broken = Broken::passing("unsupported", sentence);
    Broken { kind: ErrorKind::Unsupported, again: false, ..broken }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(range: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_RANGE, HeaderValue::from_static(range))])
    }

    #[test]
    fn ranges_parse_or_are_nothing() {
        let parse =
            |text| ContentRange::of(&headers(text)).map(|r| (r.first, r.last, r.total_bytes));
        assert_eq!(parse("bytes 0-9/10"), Some((0, 9, Some(10))));
        assert_eq!(parse("Bytes  5-5/*"), Some((5, 5, None)));
        for wrong in [
            "bytes 0-9",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "items 0-9/10",
            "bytes */10",
            "bytes -1-3/9",
            "bytes 0-18446744073709551616/*",
            "bytes 0-9/ten",
            "",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(unsatisfied_total(&headers("bytes */10")), Some(10));
        assert_eq!(unsatisfied_total(&headers("bytes 0-9/10")), None);
    }

    #[test]
    fn a_request_names_its_last_byte() {
        let request = request(Uri::from_static("http://h/p"), 10, 1);
        assert_eq!(request.headers()[header::RANGE], "bytes=10-10");
    }
}
