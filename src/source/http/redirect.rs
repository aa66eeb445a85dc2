//! Where a server sends us.

use super::exchange::Answer;
use super::failure::{Broken, Failure};
use super::pool::Origin;
use http::{Uri, header};

/// Where `answer` sends us, if it does.
pub(super) fn redirect(
    from: &Uri,
    answer: &Answer,
    follows: bool,
) -> std::result::Result<Option<Uri>, Failure> {
    let moved = [301, 302, 303, 307, 308].contains(&answer.head.status.as_u16());
    let target = answer.head.headers.get(header::LOCATION);
    let Some(target) = target.filter(|_| moved && follows) else {
        return Ok(None);
    };
    let refuse = |sentence: String| {
        Failure::from(Broken { again: false, ..Broken::passing("redirect", sentence) })
    };
    let origin = Origin::of(from);
    let to = target
        .to_str()
        .ok()
        .and_then(|target| join(from, target))
        .ok_or_else(|| refuse(format!("{} redirects to what is no URL", origin.as_str())))?;
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        let to = Origin::of(&to);
        let sentence = format!(
            "{} redirects to {}, away from TLS; this is not followed",
            origin.as_str(),
            to.as_str()
        );
        return Err(refuse(sentence));
    }
    Ok(Some(to))
}

/// The absolute URL that `target`, the value of a `Location` header, means when it comes from
/// `base` (RFC 3986, section 5.2, without the merging of `..` that no server relies on).
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
