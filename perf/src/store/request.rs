//! The head of a request.

use std::ops::Range;

/// A request, as far as the store looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub is_head: bool,
    /// The path, without the query.
    pub path: String,
    pub query: String,
    /// The value of `Range`.
    pub range: Option<String>,
    pub closes: bool,
}

impl Request {
    /// Parses the beginning of `bytes`; returns also the length of the head. `None` if it is
    /// incomplete.
    ///
    /// # Errors
    /// When it is not HTTP.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(len) = parsed.parse(bytes)? else { return Ok(None) };
        let target = origin_form(parsed.path.unwrap_or("/"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = parsed.method.unwrap_or_default();
        let header = |name: &str| {
            let found = parsed.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name))?;
            Some(String::from_utf8_lossy(found.value).into_owned())
        };
        let request = Self {
            is_head: method == "HEAD",
            path: path.to_owned(),
            query: query.to_owned(),
            range: header("range"),
            closes: header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close")),
        };
        Ok(Some((request, len)))
    }

    /// The bytes that are requested of `len`; all without a range. `None` if there are none.
    pub fn bytes(&self, len: u64) -> Option<Range<u64>> {
        let Some(range) = self.range.as_ref().and_then(|range| range.strip_prefix("bytes=")) else {
            return Some(0..len);
        };
        let (first, last) = range.split_once('-')?;
        let range = match (first, last) {
            ("", last) => len.saturating_sub(last.parse().ok()?)..len,
            (first, "") => first.parse().ok()?..len,
            (first, last) => {
                first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(len)
            }
        };
        (range.start < range.end).then_some(range)
    }

    /// The value of a parameter of the query, which is not decoded but for `%2F`.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs =
            self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(found, _)| *found == name)?;
        Some(value.replace("%2F", "/").replace("%2f", "/"))
    }
}

/// The target from its path on, as the SDK for C++ sends the scheme and the host with it.
fn origin_form(target: &str) -> &str {
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return target;
    };
    rest.find('/').map_or("/", |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_when_it_is_complete() {
        let text = b"GET /b?list-type=2&prefix=m%2F HTTP/1.1\r\nRange: bytes=2-4\r\n\r\nGET";
        assert_eq!(Request::parse(&text[..20]), Ok(None));
        let (request, len) = Request::parse(text).unwrap().unwrap();
        assert_eq!((request.path.as_str(), len), ("/b", text.len() - 3));
        assert_eq!(request.parameter("prefix").as_deref(), Some("m/"));
        assert_eq!(request.bytes(10), Some(2..5));
        let range = |range: &str| Request { range: Some(range.to_owned()), ..request.clone() };
        assert_eq!(range("bytes=-3").bytes(10), Some(7..10));
        assert_eq!(range("bytes=4-").bytes(10), Some(4..10));
        assert_eq!(range("bytes=4-99").bytes(10), Some(4..10));
        assert_eq!(range("bytes=10-11").bytes(10), None);
        assert!(Request::parse(b"\0\0\0").is_err());
        let absolute = b"GET http://host:80/b/key?prefix=http://a HTTP/1.1\r\n\r\n";
        let (request, _) = Request::parse(absolute).unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.query.as_str()), ("/b/key", "prefix=http://a"));
    }
}
