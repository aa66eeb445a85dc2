//! What objects are called in the cache.
//!
//! The name of a place is a hash, so that nothing secret, nothing too long and no odd character gets
//! into the file system. What changes with every signed URL of one object is left out of it.

use crate::location::ObjectUri;
use crate::source::ObjectIdentity;
use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write;

/// Digits of an identity's name; those of a place are 64.
const IDENTITY_DIGITS: usize = 16;

/// Parameters that belong to a signature, in lower case; those of Azure only beside its `sig`.
const SIGNATURE: [&str; 8] = [
    "signature",
    "expires",
    "policy",
    "key-pair-id",
    "awsaccesskeyid",
    "googleaccessid",
    "x-id",
    "hdnts",
];
const SIGNATURE_AZURE: [&str; 16] = [
    "sig", "se", "sp", "sv", "sr", "st", "spr", "sip", "si", "ss", "srt", "skoid", "sktid", "skt",
    "ske", "sks",
];

/// The name of the place of `uri`; `server` says where it is, beside the location.
pub(super) fn of_place(uri: &ObjectUri, server: &str) -> String {
    let container = match (uri.is_url(), uri.container().rsplit_once('@')) {
        // Another user may get something else; the password does not matter.
        (true, Some((user, host))) => {
            format!("{}@{host}", user.split(':').next().unwrap_or_default())
        }
        _ => uri.container().to_owned(),
    };
    let key = if uri.is_url() { unsigned(uri.key()) } else { uri.key().to_owned() };
    let parts = [uri.scheme().as_str(), server, &container, &key];
    hash(parts.map(str::as_bytes))
}

/// The name of an identity.
pub(super) fn of_identity(identity: &ObjectIdentity) -> String {
    let length = identity.len_bytes.to_le_bytes();
    let mut name = match identity.strong_etag_bytes() {
        Some(etag) => hash([&length[..], b"etag", etag]),
        None => {
            let modified = identity.last_modified().unwrap_or_default();
            hash([&length[..], b"modified", modified, identity.etag().unwrap_or_default()])
        }
    };
    name.truncate(IDENTITY_DIGITS);
    name
}

/// SHA-256 of the parts and where they end, in hexadecimal digits.
pub(super) fn hash<const N: usize>(parts: [&[u8]; N]) -> String {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    hex(digest(&SHA256, &all).as_ref())
}

/// In lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Path and query without what signs them.
fn unsigned(key: &str) -> String {
    let Some((path, query)) = key.split_once('?') else { return key.to_owned() };
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let is_azure = query.split('&').any(|pair| name(pair) == "sig");
    let kept = query.split('&').filter(|pair| {
        let name = name(pair);
        !(name.starts_with("x-amz-")
            || name.starts_with("x-goog-")
            || SIGNATURE.contains(&name.as_str())
            || is_azure && SIGNATURE_AZURE.contains(&name.as_str()))
    });
    format!("{path}?{}", kept.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    fn place(url: &str) -> String {
        let Location::Object(uri) = Location::parse(url).unwrap() else { panic!("{url}") };
        of_place(&uri, "")
    }

    #[test]
    fn signatures_and_passwords_do_not_matter_and_all_else_does() {
        let same = [
            ("https://h/a?x=1&X-Amz-Signature=s&X-Amz-Date=1", "https://h/a?x=1&X-Amz-Signature=t"),
            ("https://u:p@h/a", "https://u:q@h/a"),
            ("https://h/a?sv=1&se=2&sig=3", "https://h/a?sv=1&se=3&sig=4"),
        ];
        for (a, b) in same {
            assert_eq!(place(a), place(b), "{a} {b}");
        }
        let different = [
            "https://h/a",
            "http://h/a",
            "https://h/b",
            "https://h/a?x=1",
            "https://h/a?x=2",
            "https://h/a?se=2",
            "https://h/a?se=3",
            "https://u@h/a",
            "s3://h/a",
            "https://ha/",
        ];
        let mut names: Vec<_> = different.map(place).into();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), different.len());
        let Location::Object(uri) = Location::parse("s3://b/k").unwrap() else { panic!() };
        assert_ne!(of_place(&uri, ""), of_place(&uri, "http://minio"));
    }

    #[test]
    fn identities_go_by_the_strong_etag_else_by_the_time() {
        let of = |len, etag: Option<&str>, time: Option<&str>| {
            let identity =
                ObjectIdentity::from_parts(len, etag.map(str::as_bytes), time.map(str::as_bytes));
            of_identity(&identity.unwrap())
        };
        assert_eq!(of(1, Some("\"a\""), Some("x")), of(1, Some("\"a\""), Some("y")));
        assert_ne!(of(1, Some("\"a\""), None), of(1, Some("\"b\""), None));
        assert_ne!(of(1, Some("\"a\""), None), of(2, Some("\"a\""), None));
        assert_ne!(of(1, Some("W/\"a\""), Some("x")), of(1, Some("W/\"a\""), Some("y")));
        assert_eq!(of(1, None, Some("x")).len(), IDENTITY_DIGITS);
    }
}
