//! The targets of redirects.

use super::attempt_error::{AttemptError, Attempted, TransportError};
use super::body::Body;
use super::origin::ServerOrigin;
use http::{Response, Uri, header};

/// The URL that a response from `from` redirects to; `None` if the response is not a redirect.
///
/// # Errors
/// When the target is not a URL, or leads from `https` to `http`.
pub(super) fn redirect(from: &Uri, response: &Response<Body>) -> Attempted<Option<Uri>> {
    let redirects = [301, 302, 303, 307, 308].contains(&response.status().as_u16());
    let Some(target) = response.headers().get(header::LOCATION).filter(|_| redirects) else {
        return Ok(None);
    };
    let origin = ServerOrigin::of(from);
    let Some(to) = target.to_str().ok().and_then(|target| join(from, target)) else {
        return Err(refused(format!("{origin} redirects to something that is not a URL")));
    };
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        let to = ServerOrigin::of(&to);
        return Err(refused(format!(
            "{origin} redirects to {to}, away from TLS; this is not followed"
        )));
    }
    Ok(Some(to))
}

/// The error of a redirect that is not followed.
pub(super) fn refused(sentence: String) -> AttemptError {
    let error = TransportError::transient("redirect", sentence);
    TransportError { retryable: false, ..error }.into()
}

/// The absolute URL of `target`, the value of a `Location` header in a response from `base` (RFC
/// 3986, section 5.2, without the resolution of `..`, which servers do not rely on).
fn join(base: &Uri, target: &str) -> Option<Uri> {
    let target = target.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let absolute = if target.contains("://") && !target.starts_with('/') {
        target.to_owned()
    } else if let Some(rest) = target.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{target}")
    };
    let uri: Uri = absolute.parse().ok()?;
    (["http", "https"].contains(&uri.scheme_str()?) && uri.host().is_some()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_may_be_relative() {
        let base = Uri::from_static("https://host:8443/a/b?c");
        for (target, url) in [
            ("https://other/x?y=http://z#f", Some("https://other/x?y=http://z")),
            ("//other/x", Some("https://other/x")),
            ("/x?y=http://z", Some("https://host:8443/x?y=http://z")),
            ("x", Some("https://host:8443/a/x")),
            ("ftp://other/x", None),
            ("https://", None),
        ] {
            assert_eq!(join(&base, target).map(|uri| uri.to_string()).as_deref(), url, "{target}");
        }
    }
}
