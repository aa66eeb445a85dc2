//! What requests for objects are made of, and listings are read with, whatever the store.

use super::traits::{ListDepth, ListEntry};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};

/// A request without a body.
pub(super) fn request(method: Method, uri: Uri) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

/// A request for what is at `uri`.
pub(in crate::source) fn get(uri: Uri) -> Request<Bytes> {
    request(Method::GET, uri)
}

/// `text` as a URL; what a store makes of its base and escaped names always is one, or nearly so.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), without the text, where it is too long.
#[cfg(any(feature = "gcs", feature = "azure"))]
pub(super) fn url(text: &str) -> crate::Result<Uri> {
    use crate::error::{Error, ErrorKind};
    text.parse().map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "a name that is too long for a URL").with_source(error)
    })
}

/// Whether `uri` can be the base of a store's URLs: a web server, without a user, password or query.
pub(super) fn is_base(uri: &Uri) -> bool {
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    known && plain && uri.query().is_none() && uri.host().is_some_and(|host| !host.is_empty())
}

/// Whether a credential server that answers `status` may do better in a moment.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(super) fn is_passing(status: http::StatusCode) -> bool {
    status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS
}

/// The authorization that `token` is; `None` for what no header can hold.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The entry in `directory` (`""`, or ending in `/`) of the object `path` of `len_bytes`, if a listing of
/// this depth has it.
pub(super) fn entry(
    directory: &str,
    path: &str,
    len_bytes: u64,
    depth: ListDepth,
) -> Option<ListEntry> {
    let name = match depth {
        ListDepth::Directory => child(directory, path),
        // What ends in a slash stands for a directory.
        ListDepth::Tree => {
            path.strip_prefix(directory).filter(|name| !name.is_empty() && !name.ends_with('/'))
        }
    }?;
    Some(ListEntry { name: name.to_owned(), len_bytes })
}

/// The name in `directory` (`""`, or ending in `/`) of the object `path`, if it is right there and
/// is not what stands for the directory itself.
pub(super) fn child<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(directory).filter(|name| !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_have_what_is_as_deep_as_was_asked_for() {
        let names = |depth| {
            let paths = ["m/", "m/x", "m/a/y", "m/a/", "other"].into_iter();
            paths.filter_map(|path| Some(entry("m/", path, 1, depth)?.name)).collect::<Vec<_>>()
        };
        assert_eq!(names(ListDepth::Directory), ["x"]);
        assert_eq!(names(ListDepth::Tree), ["x", "a/y"]);
    }

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
