//! The names of entries.
//!
//! The name of an address is a hash, so that no secret, no long name and no special character gets
//! into the file system. The hash leaves out the query parameters that change with every signed URL
//! of the same object.

use crate::location::ObjectUri;
use crate::source::ObjectIdentity;
use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write;

/// The digits of an identity's name; the name of an address has 64.
const IDENTITY_DIGITS: usize = 16;

/// The query parameters of signatures in URLs, in lower case. Those of Azure are recognised only
/// together with its `sig`.
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

/// The name of the address of `uri`. `server` is the address of the object's server if `uri` does
/// not contain it, else an empty string.
pub(super) fn of_address(uri: &ObjectUri, server: &str) -> String {
    let container = match (uri.is_url(), uri.container().rsplit_once('@')) {
        // Another user may get another object, so the user name counts and the password does not.
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

/// The SHA-256 of the parts and their lengths, in hexadecimal digits.
pub(super) fn hash<const N: usize>(parts: [&[u8]; N]) -> String {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    sha256(&all)
}

/// The SHA-256 of `bytes`, in lower-case hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// The path and query `key` without the parameters of a signature.
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

    fn address(url: &str) -> String {
        let Location::Object(uri) = Location::parse(url).unwrap() else { panic!("{url}") };
        of_address(&uri, "")
    }

    #[test]
    fn signatures_and_passwords_do_not_matter_and_all_else_does() {
        let same = [
            ("https://h/a?x=1&X-Amz-Signature=s&X-Amz-Date=1", "https://h/a?x=1&X-Amz-Signature=t"),
            ("https://u:p@h/a", "https://u:q@h/a"),
            ("https://h/a?sv=1&se=2&sig=3", "https://h/a?sv=1&se=3&sig=4"),
        ];
        for (a, b) in same {
            assert_eq!(address(a), address(b), "{a} {b}");
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
        let mut names: Vec<_> = different.map(address).into();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), different.len());
        let Location::Object(uri) = Location::parse("s3://b/k").unwrap() else { panic!() };
        assert_ne!(of_address(&uri, ""), of_address(&uri, "http://minio"));
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
