//! Error responses, and what the client does about them.

use super::error_body::ErrorBody;
use crate::error::ErrorKind;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use std::time::{Duration, SystemTime};

/// The remedy for a server that requires a certificate of the client.
pub(super) const CLIENT_CERTIFICATE: &str = "ringload has no client certificates: load through a proxy on this machine that sends one \
     (stunnel, or nginx with proxy_ssl_certificate), or from an address that requires none";

/// What the client does after an error response. Only stores with credentials use all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ErrorAction {
    /// Retry after a wait.
    Retry {
        /// Whether the server asked for fewer requests.
        throttled: bool,
    },
    /// Retry at once, because the store has learnt something from the response (the bucket's
    /// region). The word names what it has learnt. Granted once per word.
    #[cfg_attr(not(any(feature = "s3", feature = "gcs")), allow(dead_code))]
    RetryOnce(&'static str),
    /// The clocks differ: adopt the time of the response's `Date` header and retry, once.
    #[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
    CorrectClock,
    /// The credentials have expired: renew them and retry, once.
    #[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
    RenewCredentials,
    /// Give up. The sentence says what the server reported and what to do; the caller puts the
    /// location before it.
    Fail(ErrorKind, String),
}

#[cfg(test)]
#[cfg(any(feature = "gcs", feature = "azure"))]
impl ErrorAction {
    /// The kind and sentence of a failure; panics on any other action.
    #[track_caller]
    pub fn failed(self) -> (ErrorKind, String) {
        match self {
            Self::Fail(kind, sentence) => (kind, sentence),
            other => panic!("{other:?}"),
        }
    }
}

/// A response whose status is not a success, with the beginning of its body.
#[derive(Debug, Clone)]
pub(crate) struct ErrorResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most [`BODY_BYTES_MAX`] bytes. The body is read even where the store ignores it, to make
    /// the connection reusable.
    pub body: Bytes,
}

/// The maximum number of bytes of the body that are read.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;

impl ErrorResponse {
    /// The action for a response by its status alone.
    pub fn default_action(&self) -> ErrorAction {
        let fail =
            |kind, remedy: &str| ErrorAction::Fail(kind, format!("{}; {remedy}", self.describe()));
        match self.status.as_u16() {
            408 | 425 | 500 | 502 | 504 => ErrorAction::Retry { throttled: false },
            429 | 503 => ErrorAction::Retry { throttled: true },
            400 if self.misses_certificate() => fail(
                ErrorKind::PermissionDenied,
                &format!("it requires a client certificate: {CLIENT_CERTIFICATE}"),
            ),
            400 => fail(ErrorKind::InvalidInput, "it does not understand the request"),
            401 => fail(ErrorKind::PermissionDenied, "it requires credentials; give them"),
            403 if self.describe().to_ascii_lowercase().contains("expired") => {
                fail(ErrorKind::PermissionDenied, "a signature is too old: make the URL again")
            }
            403 => fail(ErrorKind::PermissionDenied, "these credentials do not permit reading it"),
            404 | 410 => fail(ErrorKind::NotFound, "check the location"),
            407 => fail(
                ErrorKind::PermissionDenied,
                "the proxy requires credentials; give them in its URL",
            ),
            412 => {
                fail(ErrorKind::Changed, "the object was replaced while it was read: load again")
            }
            416 => fail(ErrorKind::Changed, "the object is shorter than it was: load again"),
            _ => fail(ErrorKind::Io, "the status is unexpected"),
        }
    }

    /// Whether this is nginx's response to a client without a certificate, or with a wrong one.
    fn misses_certificate(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        ["No required SSL certificate was sent", "The SSL certificate error"]
            .iter()
            .any(|sentence| text.contains(sentence))
    }

    /// The status, and what the body says about it.
    pub fn describe(&self) -> String {
        ErrorBody::parse(&self.body).describe(self.status)
    }

    /// The time to wait before a retry that the server asks for.
    pub fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        Some(match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
        })
    }

    /// The time by the server's clock.
    pub fn date(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.headers.get(header::DATE)?.to_str().ok()?).ok()
    }

    /// The value of the header `name`, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn any_header_is_a_time_or_none() {
        let examples = ["120", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"];
        crate::test_fuzz::never_panics("Retry-After", &examples, |text| {
            let Ok(value) = HeaderValue::from_bytes(text) else { return };
            let headers =
                [(header::RETRY_AFTER, value.clone()), (header::DATE, value)].into_iter().collect();
            let response = ErrorResponse { status: StatusCode::OK, headers, body: Bytes::new() };
            response.retry_after(SystemTime::now());
            response.date();
        });
    }
}
