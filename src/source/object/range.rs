//! Range requests, and the checks of their responses (RFC 9110, section 14).

use crate::error::ErrorKind;
use crate::source::http::{AttemptError, Attempted, Body, ServerOrigin, TransportError};
use crate::source::store::requests::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};

/// The `Content-Range` of a response: bytes `first` to `last`, both included, of `total_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub first: u64,
    pub last: u64,
    pub total_bytes: Option<u64>,
}

impl ContentRange {
    /// Parses the header; `None` if it is missing or invalid.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (range, total) = parts(headers)?;
        let (first, last) = range.split_once('-')?;
        let total_bytes = match total {
            "*" => None,
            number => Some(number.parse().ok()?),
        };
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        // No object is so long that its last byte has the greatest number.
        let is_valid =
            first <= last && last < u64::MAX && total_bytes.is_none_or(|total: u64| last < total);
        is_valid.then_some(Self { first, last, total_bytes })
    }

    /// The number of bytes.
    pub fn len_bytes(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// The length of the object in the response to a range beyond its end (`bytes */1234`).
pub(super) fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
    match parts(headers)? {
        ("*", total) => total.parse().ok(),
        _ => None,
    }
}

/// The range and the total of the header; `None` also if it is there twice with different values, as
/// nothing says which of them the body is.
fn parts(headers: &HeaderMap) -> Option<(&str, &str)> {
    let mut values = headers.get_all(header::CONTENT_RANGE).iter();
    let first = values.next()?;
    if values.any(|other| other != first) {
        return None;
    }
    let text = first.to_str().ok()?;
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

/// Checks that the body is not encoded: its bytes would not be those of the object.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) if the body is encoded.
pub(super) fn refuse_encoding(headers: &HeaderMap, origin: &ServerOrigin) -> Attempted<()> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let sentence = format!(
                "{origin} sends the object encoded ({encoding:?}) although it was asked not to; store \
                 it without a Content-Encoding"
            );
            Err(unsupported(sentence))
        }
        _ => Ok(()),
    }
}

/// Whether the body is the `len` bytes of the object from `offset`.
pub(super) fn fits(response: &Response<Body>, offset: u64, len: u64) -> bool {
    let is_whole = response.status() == StatusCode::OK;
    let range = ContentRange::of(response.headers());
    (is_whole || range.is_some_and(|range| range.first == offset && range.len_bytes() == len))
        && response.body().left().is_none_or(|bytes| bytes == len)
}

/// The error of a response (206) whose `headers` do not say that its body is the requested range, as
/// some caches and proxies send it. It is retried.
///
/// A body of the right length but without `Content-Range` is refused too: nothing says which bytes of
/// the object it has. The crate object_store does the same.
pub(super) fn wrong_range(origin: &ServerOrigin, headers: &HeaderMap) -> AttemptError {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_multipart = kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"));
    let remedy =
        "check the server, and each cache or proxy in between, or download the object first";
    let ranges: Vec<_> = headers.get_all(header::CONTENT_RANGE).iter().collect();
    let sentence = match ranges.first() {
        _ if is_multipart => format!(
            "{origin} answers a request for one range with several parts (multipart/byteranges); \
             {remedy}"
        ),
        None => format!(
            "{origin} answers a request for a range without the header Content-Range, so nothing \
             says which bytes it sends; {remedy}"
        ),
        Some(first) if ranges.iter().any(|range| range != first) => format!(
            "{origin} answers a request for one range with several headers Content-Range, which \
             differ ({ranges:?}); {remedy}"
        ),
        Some(range) if ContentRange::of(headers).is_none() => format!(
            "{origin} answers a request for a range with the invalid header Content-Range {range:?}; \
             {remedy}"
        ),
        Some(range) => format!(
            "{origin} answers with another range than it was asked for ({range:?}), or with a body of \
             another length; {remedy}"
        ),
    };
    TransportError { attempts_max: Some(3), ..TransportError::transient("wrong range", sentence) }
        .into()
}

/// The error of a server that does not tell how long an object is. Nothing can be read from the end
/// of a range alone, since a server may send less than was asked for.
pub(super) fn no_length(origin: &ServerOrigin) -> AttemptError {
    let sentence = format!(
        "{origin} does not say how long the object is: its Content-Range ends in /*, and a HEAD \
         request gives no Content-Length; serve it from a server that does (nginx and every object \
         store do), or download it first"
    );
    unsupported(sentence)
}

/// The error of a server that ignores ranges and sends the whole object.
pub(super) fn no_ranges(origin: &ServerOrigin) -> AttemptError {
    let sentence = format!(
        "{origin} ignores the Range header and sends the whole object; serve it from a server that \
         supports range requests (nginx and every object store do), or download it first"
    );
    unsupported(sentence)
}

fn unsupported(sentence: String) -> AttemptError {
    let error = TransportError::transient("unsupported", sentence);
    TransportError { kind: ErrorKind::Unsupported, retryable: false, ..error }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(range: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_RANGE, HeaderValue::from_static(range))])
    }

    #[test]
    fn invalid_ranges_are_none() {
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
        // The first of two values counted, whatever the second said.
        let mut two = headers("bytes 0-9/10");
        two.append(header::CONTENT_RANGE, HeaderValue::from_static("bytes 0-9/10"));
        assert!(ContentRange::of(&two).is_some());
        two.append(header::CONTENT_RANGE, HeaderValue::from_static("bytes 5-14/20"));
        assert_eq!(ContentRange::of(&two), None);
        assert_eq!(unsatisfied_total(&headers("bytes */10")), Some(10));
        assert_eq!(unsatisfied_total(&headers("bytes 0-9/10")), None);
    }

    /// All of these were called "another range", and a broken cache was suspected.
    #[test]
    fn the_error_of_a_wrong_range_says_what_is_wrong() {
        let origin = ServerOrigin::of(&Uri::from_static("http://h/"));
        let told = |pairs: &[(header::HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, HeaderValue::from_static(value));
            }
            wrong_range(&origin, &headers).to_string()
        };
        let multipart = (header::CONTENT_TYPE, "multipart/byteranges; boundary=x");
        assert!(told(&[multipart]).contains("several parts"));
        assert!(told(&[]).contains("without the header Content-Range"));
        assert!(told(&[(header::CONTENT_RANGE, "0-9")]).contains("invalid header Content-Range"));
        let range = (header::CONTENT_RANGE, "bytes 0-9/10");
        assert!(told(std::slice::from_ref(&range)).contains("another range"));
        assert!(told(&[range, (header::CONTENT_RANGE, "bytes 1-9/10")]).contains("differ"));
    }

    #[test]
    fn a_request_names_its_last_byte() {
        let request = request(Uri::from_static("http://h/p"), 10, 1);
        assert_eq!(request.headers()[header::RANGE], "bytes=10-10");
    }

    /// The length of `bytes 0-18446744073709551615/*` overflowed.
    #[test]
    fn any_header_is_a_range_or_none() {
        let examples = [
            "bytes 0-9/10",
            "bytes */10",
            "Bytes  5-5/*",
            "bytes 0-18446744073709551615/*",
            "bytes 1-18446744073709551615/18446744073709551615",
        ];
        crate::test_fuzz::never_panics("Content-Range", &examples, |text| {
            let Ok(value) = HeaderValue::from_bytes(text) else { return };
            let headers = HeaderMap::from_iter([(header::CONTENT_RANGE, value)]);
            unsatisfied_total(&headers);
            if let Some(range) = ContentRange::of(&headers) {
                assert!(range.len_bytes() > 0);
                assert!(range.total_bytes.is_none_or(|total| range.last < total), "{range:?}");
            }
        });
    }
}
