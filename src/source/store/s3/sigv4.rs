//! AWS Signature Version 4.
//!
//! The signature covers the request as it is sent (path and query are already percent-encoded, once),
//! `Host`, and every `x-amz-*` header. Other headers are not signed: proxies may change them, and the
//! response shows whether `Range` was honoured.
//!
//! The caller passes the time: where the server's clock differs from this machine's, requests are
//! signed with the server's time. This rules out the signer of reqsign, which uses the system time.
//!
//! The crate `aws-sigv4` accepts a time, but its last release for Rust 1.89 (1.3.8) writes the session
//! token to a trace event, panics at a time after the year 9999, which a server's clock may claim, and
//! depends on 22 more crates, among them a second `http` (0.2). Release 1.6.4 keeps the token out of
//! traces, but needs Rust 1.94.1.

use super::aws_credential::AwsCredential;
use super::time::second;
use crate::error::{Error, Result};
use http::request::Parts;
use http::{HeaderName, HeaderValue, header};
use reqsign_core::hash::{hex_hmac_sha256, hex_sha256, hmac_sha256};
use std::fmt::Write;
use std::time::SystemTime;

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The service and region that a signature is valid for.
pub(super) struct Scope<'a> {
    pub service: &'a str,
    pub region: &'a str,
}

/// Signs a request with this `body` at the time `now`.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for credentials that a header cannot hold.
pub(super) fn sign(
    head: &mut Parts,
    body: &[u8],
    credential: &AwsCredential,
    scope: &Scope<'_>,
    now: SystemTime,
) -> Result<()> {
    let stamp = second(now);
    let (date, time) = (stamp.format_date(), stamp.format_iso8601());
    let body_sha256 = hex_sha256(body);
    head.headers.insert(DATE, value(&time, false)?);
    head.headers.insert(CONTENT_SHA256, value(&body_sha256, false)?);
    match &credential.session_token {
        Some(token) => head.headers.insert(SECURITY_TOKEN, value(token, true)?),
        None => head.headers.remove(SECURITY_TOKEN),
    };
    let (names, request) = canonical(head, &body_sha256)?;
    let request_sha256 = hex_sha256(request.as_bytes());
    let Scope { service, region } = scope;
    let scope_text = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope_text}\n{request_sha256}");
    let key = key(&credential.secret_access_key, &date, scope);
    let signature = hex_hmac_sha256(&key, text.as_bytes());
    let id = &credential.access_key_id;
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope_text}, SignedHeaders={names}, Signature={signature}"
    );
    head.headers.insert(header::AUTHORIZATION, value(&authorization, true)?);
    Ok(())
}

/// The names of the signed headers, and the canonical request.
fn canonical(head: &Parts, body_sha256: &str) -> Result<(String, String)> {
    let host = head.uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit('@').next().unwrap_or_default();
    let mut headers = vec![("host", host.to_owned())];
    for name in head.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")) {
        let mut values = Vec::new();
        for value in head.headers.get_all(name) {
            let text = value.to_str().map_err(|_| unusable("a header's value"))?;
            values.push(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        }
        headers.push((name.as_str(), values.join(",")));
    }
    headers.sort();
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut text = format!("{}\n{}\n{}\n", head.method, head.uri.path(), query(head));
    for (name, value) in &headers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}:{value}");
    }
    let _ = write!(text, "\n{names}\n{body_sha256}");
    Ok((names, text))
}

/// The canonical query: sorted, with a `=` after every name.
fn query(head: &Parts) -> String {
    let pairs = head.uri.query().into_iter().flat_map(|query| query.split('&'));
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// The signing key of a day, a region and a service, derived from the secret key.
fn key(secret: &str, date: &str, scope: &Scope<'_>) -> Vec<u8> {
    let parts = [date, scope.region, scope.service, "aws4_request"];
    let secret = format!("AWS4{secret}").into_bytes();
    parts.iter().fold(secret, |key, part| hmac_sha256(&key, part.as_bytes()))
}

fn value(text: &str, secret: bool) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| unusable("the credentials"))?;
    value.set_sensitive(secret);
    Ok(value)
}

fn unusable(what: &str) -> Error {
    Error::invalid_input(format!(
        "cannot sign a request: {what} holds characters that a header cannot hold; check it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn signed(uri: &str, token: Option<&str>, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let credential = AwsCredential {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: token.map(str::to_owned),
            expires: None,
        };
        let scope = Scope { service: "s3", region: "us-east-1" };
        // 2013-05-24T00:00:00Z, the time of AWS's own examples.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        sign(&mut head, b"", &credential, &scope, now).unwrap();
        head
    }

    fn signature(head: &Parts) -> &str {
        let value = head.headers[header::AUTHORIZATION].to_str().unwrap();
        value.rsplit_once("Signature=").unwrap().1
    }

    /// From "Authenticating Requests: Using the Authorization Header" of the S3 API reference.
    #[test]
    fn signatures_match_the_documentation() {
        let lifecycle = signed("https://examplebucket.s3.amazonaws.com/?lifecycle", None, &[]);
        assert_eq!(
            signature(&lifecycle),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        let list = signed("https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2", None, &[]);
        assert_eq!(
            signature(&list),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
        let authorization = list.headers[header::AUTHORIZATION].to_str().unwrap();
        let start = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/\
                     aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=";
        assert!(authorization.starts_with(start), "{authorization}");
        assert!(list.headers[header::AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn amazon_headers_are_signed_and_others_are_not() {
        let url = "https://examplebucket.s3.amazonaws.com/test.txt";
        let plain = signed(url, None, &[]);
        let range = signed(url, None, &[("range", "bytes=0-9"), ("user-agent", "x")]);
        assert_eq!(signature(&plain), signature(&range));
        let payer = signed(url, None, &[("x-amz-request-payer", "requester")]);
        assert_ne!(signature(&plain), signature(&payer));
        let spaced = signed(url, None, &[("x-amz-request-payer", " requester  ")]);
        assert_eq!(signature(&spaced), signature(&payer));
        let token = signed(url, Some("token"), &[]);
        assert_ne!(signature(&plain), signature(&token));
        assert_eq!(token.headers[SECURITY_TOKEN], "token");
        assert!(token.headers[SECURITY_TOKEN].is_sensitive());
    }

    /// A server's clock may claim such a time.
    #[test]
    fn a_time_after_the_year_9999_does_not_panic() {
        let mut head = http::Request::get("https://h/").body(()).unwrap().into_parts().0;
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        let scope = Scope { service: "s3", region: "us-east-1" };
        sign(&mut head, b"", &AwsCredential::default(), &scope, far).unwrap();
        assert!(!signature(&head).is_empty());
    }

    #[test]
    fn queries_are_sorted_by_name() {
        let head = signed("https://h/?b=2&a&c=%20", None, &[]);
        assert_eq!(query(&head), "a=&b=2&c=%20");
    }

    #[test]
    fn an_invalid_header_value_is_not_repeated_in_the_error() {
        let error = value("s3cret\n", true).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
