//! HTTP/1.1 over raw hyper connections: what all object stores and web servers are reached by.
//!
//! ```text
//! client    what the requests of a loader share; one attempt of a request; small requests whole
//! exchange  one request on one connection; the body is read straight into its memory
//! dial      names, addresses, proxies, TLS          pool     idle connections of a runtime
//! retry     what follows from a failed attempt      host     what is remembered of a server
//! gate      how many ranges are under way at once   tail     when an answer is late
//! ```
//!
//! HTTP/2 is not used: one connection with many streams is flow-controlled twice and decrypted by
//! one core at a time; many connections are what object stores are built for.

mod client;
mod control;
mod dial;
mod exchange;
mod failure;
mod gate;
mod host;
mod pool;
mod refusal;
mod retry;
mod tail;

pub(crate) use client::{Answered, Client};
pub(crate) use exchange::Body;
pub(crate) use failure::{Broken, Failure};
pub(crate) use gate::CONNECTIONS_MAX;
pub(crate) use host::Host;
pub(crate) use pool::{Origin, Pool};
pub(crate) use refusal::Refusal;
pub(crate) use retry::Tries;

use http::Uri;

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
