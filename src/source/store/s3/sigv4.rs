//! Signature Version 4: how AWS wants a request to be signed.
//!
//! What is signed is the request as it goes on the wire (its path and query are percent-encoded
//! already, once), with `Host` and every `x-amz-*` header. Other headers are left out: proxies may
//! change them, and `Range` is checked against the answer.
//!
//! The time is the caller's, since a request is signed by the server's clock where that differs
//! from this machine's; signers that take the system's time cannot be used for that.

use super::credentials::Credential;
use super::time::second;
use crate::error::{Error, ErrorKind, Result};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use http::request::Parts;
use http::{HeaderName, HeaderValue, header};
use std::fmt::Write;
use std::time::SystemTime;

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Whom a signature is for.
pub(super) struct Scope<'a> {
    pub service: &'a str,
    pub region: &'a str,
}

/// Signs a request with this `body`, at the time `now`.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) where credentials hold what no header may.
pub(super) fn sign(
    head: &mut Parts,
    body: &[u8],
    credential: &Credential,
    scope: &Scope<'_>,
    now: SystemTime,
) -> Result<()> {
    let stamp = second(now);
    let body_sha256 = hex(digest(&SHA256, body).as_ref());
    head.headers.insert(DATE, value(&stamp.format_iso8601(), false)?);
    head.headers.insert(CONTENT_SHA256, value(&body_sha256, false)?);
    match &credential.session_token {
        Some(token) => head.headers.insert(SECURITY_TOKEN, value(token, true)?),
        None => head.headers.remove(SECURITY_TOKEN),
    };
    let (names, request) = canonical(head, &body_sha256)?;
    let request_sha256 = hex(digest(&SHA256, request.as_bytes()).as_ref());
    let Scope { service, region } = scope;
    let (date, time) = (stamp.format_date(), stamp.format_iso8601());
    let place = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{place}\n{request_sha256}");
    let signature = hex(&hmac(&key(&credential.secret_access_key, &date, scope), &text));
    let id = &credential.access_key_id;
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{place}, SignedHeaders={names}, Signature={signature}"
    );
    head.headers.insert(header::AUTHORIZATION, value(&authorization, true)?);
    Ok(())
}

/// The names of the signed headers, and the request in the form that is signed.
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

/// The query, sorted; every name with a `=`.
fn query(head: &Parts) -> String {
    let Some(query) = head.uri.query() else {
        return String::new();
    };
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn key(secret: &str, date: &str, scope: &Scope<'_>) -> Vec<u8> {
    let first = hmac(format!("AWS4{secret}").as_bytes(), date);
    [scope.region, scope.service, "aws4_request"].iter().fold(first, |key, text| hmac(&key, text))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

/// `bytes` in lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

fn value(text: &str, secret: bool) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| unusable("the credentials"))?;
    value.set_sensitive(secret);
    Ok(value)
}

fn unusable(what: &str) -> Error {
    let sentence =
        format!("cannot sign a request: {what} holds characters that no header may; check it");
    Error::new(ErrorKind::InvalidInput, sentence)
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
        let credential = Credential {
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
    fn signatures_are_those_of_the_documentation() {
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

    #[test]
    fn queries_are_sorted_by_name() {
        let head = signed("https://h/?b=2&a&c=%20", None, &[]);
        assert_eq!(query(&head), "a=&b=2&c=%20");
    }

    #[test]
    fn what_no_header_may_hold_is_an_error_without_it() {
        let error = value("s3cret\n", true).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
