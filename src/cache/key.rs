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

/// The query parameters of signed URLs, in lower case: first the signature, without which the others
/// have another meaning. A `*` at the end stands for any letters.
const SIGNED: [&[&str]; 5] = [
    &["x-amz-signature", "x-amz-*", "x-id"],
    &["x-goog-signature", "x-goog-*"],
    &["signature", "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"],
    &["hdnts"],
    &[
        "sig", "se", "sp", "sv", "sr", "st", "spr", "sip", "si", "ss", "srt", "skoid", "sktid",
        "skt", "ske", "sks",
    ],
];

/// The digits of a scope's name.
const SCOPE_DIGITS: usize = 16;

/// The name of the address of `uri`. `server` is the address of the object's server if `uri` does
/// not contain it, else an empty string.
pub(super) fn of_address(uri: &ObjectUri, server: &str) -> String {
    let (container, key) = (container_of(uri), key_of(uri));
    let parts = [uri.scheme().as_str(), server, &container, &key];
    hash(parts.map(str::as_bytes))
}

/// The names of all locations that [`scope`] finds the object `uri` by: its own, those of the
/// directories above it, and all of these without the user and without the query.
pub(super) fn scopes(uri: &ObjectUri) -> Vec<String> {
    let (container, key) = (container_of(uri), key_of(uri));
    let host = container.rsplit('@').next().filter(|_| uri.is_url()).unwrap_or(&container);
    let query = key.strip_prefix(uri.path()).unwrap_or_default();
    let path = uri.path().trim_end_matches('/');
    let ends = path.match_indices('/').map(|(end, _)| end);
    let mut names = Vec::new();
    for path in ends.map(|end| &path[..end]).chain([path, ""]) {
        for container in [&container, host] {
            for query in [query, ""] {
                names.push(scope_name(uri, container, &format!("{path}{query}")));
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The name of `uri` as a part of a store: an object, or all objects below a directory. Without a user
/// or a query, those of all users and queries belong to it.
pub(super) fn scope(uri: &ObjectUri) -> String {
    let key = key_of(uri);
    let query = key.strip_prefix(uri.path()).unwrap_or_default();
    let path = uri.path().trim_end_matches('/');
    scope_name(uri, &container_of(uri), &format!("{path}{query}"))
}

fn scope_name(uri: &ObjectUri, container: &str, key: &str) -> String {
    let parts = ["scope", uri.scheme().as_str(), container, key];
    let mut name = hash(parts.map(str::as_bytes));
    name.truncate(SCOPE_DIGITS);
    name
}

/// The container. Another user may get another object, so the user's name counts and the password
/// does not.
fn container_of(uri: &ObjectUri) -> String {
    match (uri.is_url(), uri.container().rsplit_once('@')) {
        (true, Some((user, host))) => {
            format!("{}@{host}", user.split(':').next().unwrap_or_default())
        }
        _ => uri.container().to_owned(),
    }
}

/// The key without the parameters of a signature.
fn key_of(uri: &ObjectUri) -> String {
    if uri.is_url() { unsigned(uri.key()) } else { uri.key().to_owned() }
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
    let names: Vec<_> = query.split('&').map(name).collect();
    let is_signed = |kind: &&[&str]| names.iter().any(|name| name == kind[0]);
    let signed: Vec<_> = SIGNED.into_iter().filter(is_signed).flatten().collect();
    let is_of_signature = |name: &str| {
        signed.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == **known,
        })
    };
    let kept = query.split('&').zip(&names).filter(|(_, name)| !is_of_signature(name));
    let kept = kept.map(|(pair, _)| pair).collect::<Vec<_>>().join("&");
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") }
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
            ("https://h/a?Expires=1&Policy=p&Signature=3", "https://h/a?Signature=4&Expires=2"),
            ("https://h/a", "https://h/a?X-Goog-Signature=4&X-Goog-Date=2"),
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
            "https://h/a?policy=1",
            "https://h/a?policy=2",
            "https://h/a?expires=2",
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

    /// `cache rm` found entries by the text that is shown of a location, so that naming one query
    /// removed the objects of all of them.
    #[test]
    fn a_location_finds_itself_and_what_is_below_and_nothing_else() {
        let uri = |url: &str| {
            let Location::Object(uri) = Location::parse(url).unwrap() else { panic!("{url}") };
            uri
        };
        let object = scopes(&uri("https://u:p@h/dir/sub/m.safetensors?v=1&X-Amz-Signature=s"));
        for found in [
            "https://u:q@h/dir/sub/m.safetensors?v=1",
            "https://h/dir/sub/m.safetensors?v=1",
            "https://h/dir/sub/m.safetensors",
            "https://u@h/dir/sub/?v=1",
            "https://h/dir",
            "https://h/dir/",
            "https://h",
        ] {
            assert!(object.contains(&scope(&uri(found))), "{found}");
        }
        for other in [
            "https://h/dir/sub/m.safetensors?v=2",
            "https://h/dir/sub/m.safetensors?...",
            "https://w@h/dir/sub/m.safetensors?v=1",
            "http://h/dir/sub/m.safetensors?v=1",
            "https://h/dir/su",
            "https://h/sub/m.safetensors",
        ] {
            assert!(!object.contains(&scope(&uri(other))), "{other}");
        }
        let object = scopes(&uri("s3://b/dir/m?x"));
        assert!(object.contains(&scope(&uri("s3://b/dir/"))));
        assert!(!object.contains(&scope(&uri("s3://b/dir/m"))));
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
