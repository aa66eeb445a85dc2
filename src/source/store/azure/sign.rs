//! Shared Key authorization of API versions since 2015-02-21: an HMAC of the request's head.
//!
//! Hand-written: where this machine's clock is wrong, the signed date has to be the server's, but
//! reqsign signs with this machine's.

use crate::error::{Error, Result};
use crate::source::store::requests::secret_value;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderValue, header};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// The signed headers, in this order. Absent headers count as empty, as does the length of a request
/// without a body.
const SIGNED: [header::HeaderName; 11] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::HeaderName::from_static("content-md5"),
    header::CONTENT_TYPE,
    header::DATE,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// Signs the request `head` with the `key` of `account`; `now` is the time by the server's clock.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an account name that a header cannot hold.
pub(super) fn sign(head: &mut Parts, account: &str, key: &[u8], now: SystemTime) -> Result<()> {
    let unusable =
        || Error::invalid_input("the storage account's name has characters that are not allowed");
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(now)).map_err(|_| unusable())?;
    head.headers.insert("x-ms-date", date);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signature = hmac::sign(&key, to_sign(head, account).as_bytes());
    let text = format!("SharedKey {account}:{}", STANDARD.encode(signature));
    head.headers.insert(header::AUTHORIZATION, secret_value(&text).ok_or_else(unusable)?);
    Ok(())
}

fn to_sign(head: &Parts, account: &str) -> String {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    let mut lines = vec![head.method.to_string()];
    lines.extend(SIGNED.iter().map(|name| head.headers.get(name).map(text).unwrap_or_default()));
    let own: BTreeMap<_, _> = head
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-ms-"))
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    lines.extend(own.iter().map(|(name, value)| format!("{name}:{value}")));
    lines.push(format!("/{account}{}", head.uri.path()));
    let mut query = BTreeMap::<String, Vec<String>>::new();
    for pair in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        query.entry(decoded(name).to_lowercase()).or_default().push(decoded(value));
    }
    lines.extend(query.into_iter().map(|(name, mut values)| {
        values.sort();
        format!("{name}:{}", values.join(","))
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn the_signed_text_is_that_of_the_documentation() {
        let uri =
            "https://acc.blob.core.windows.net/box/a%20b?restype=container&comp=list&prefix=x%2F";
        let request = Request::get(uri)
            .header("range", "bytes=0-9")
            .header("if-match", "\"0x8D\"")
            .header("x-ms-version", "2021-12-02")
            .header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(
            to_sign(&head, "acc"),
            "GET\n\n\n\n\n\n\n\n\"0x8D\"\n\n\nbytes=0-9\n\
             x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2021-12-02\n\
             /acc/box/a%20b\ncomp:list\nprefix:x/\nrestype:container"
        );
    }

    #[test]
    fn the_date_is_the_server_s() {
        let request = Request::get("https://acc.blob.core.windows.net/box/x").body(()).unwrap();
        let (mut head, ()) = request.into_parts();
        sign(&mut head, "acc", b"key", SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(head.headers["x-ms-date"], "Thu, 01 Jan 1970 00:00:00 GMT");
        let authorization = &head.headers[header::AUTHORIZATION];
        assert!(authorization.is_sensitive());
        assert!(authorization.to_str().unwrap().starts_with("SharedKey acc:"));
        assert!(sign(&mut head, "a\nb", b"key", SystemTime::UNIX_EPOCH).is_err());
    }
}
