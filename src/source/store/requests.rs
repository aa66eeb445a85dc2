//! Parts of requests that all stores use.

use crate::error::{Error, Result};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use std::fmt::Display;

/// A request without a body.
pub(in crate::source) fn request(method: Method, uri: Uri) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

/// A GET request for `uri`.
pub(in crate::source) fn get(uri: Uri) -> Request<Bytes> {
    request(Method::GET, uri)
}

/// Parses a URL built from a store's base URL and the escaped name of an object in `container`. Only
/// its length can make it invalid.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), without the name, where the URL is too long.
pub(super) fn url(text: &str, container: impl Display) -> Result<Uri> {
    text.parse().map_err(|error| {
        let sentence = format!("a name in {container} is too long for a URL");
        Error::invalid_input(sentence).with_source(error)
    })
}

/// The URL `text` without a slash at the end, as text and parsed; `None` if it cannot be the base of a
/// store's URLs.
pub(super) fn base_url(text: &str) -> Option<(&str, Uri)> {
    let text = text.trim().trim_end_matches('/');
    text.parse().ok().filter(is_base).map(|uri| (text, uri))
}

/// Whether `uri` can be the base of a store's URLs: `http` or `https` and a host, without a user,
/// password or query.
fn is_base(uri: &Uri) -> bool {
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    is_web && has_host && !has_user && uri.query().is_none()
}

/// Whether a request to a credential server that answered with `status` may succeed on a retry.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(super) fn is_transient(status: http::StatusCode) -> bool {
    status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS
}

/// The value of the `Authorization` header for a bearer token; `None` if a header cannot hold it.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret_value(&format!("Bearer {}", token.trim()))
}

/// A header value that is marked as sensitive; `None` if a header cannot hold `text`.
pub(super) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_web_server_and_holds_no_secret() {
        for (url, may) in [
            ("http://127.0.0.1:9000", true),
            ("https://host/prefix", true),
            ("ftp://host", false),
            ("https://user:password@host", false),
            ("https://host/?signature=s", false),
            ("/path", false),
        ] {
            assert_eq!(is_base(&url.parse().unwrap()), may, "{url}");
        }
    }
}
