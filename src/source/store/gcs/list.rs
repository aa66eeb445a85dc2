//! Responses of the JSON API: pages of a listing, and the checksum of an object.

use crate::error::ErrorKind;
use crate::location::escape::segment;
use crate::source::store::listing::{ListingPage, ParsedPage, listed_object};
use crate::source::store::traits::{Checksum, ListDepth, ListEntry};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

pub(super) const NOT_A_LISTING: (ErrorKind, &str) =
    (ErrorKind::Io, "the response is not a listing of Google Cloud Storage; check the endpoint");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Objects {
    #[serde(default)]
    items: Vec<Object>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    /// In decimal digits.
    size: Option<String>,
}

#[derive(Deserialize)]
struct Checksums {
    crc32c: Option<String>,
}

/// The query for a page of the listing of `directory`.
pub(super) fn query(directory: &str, depth: ListDepth, token: Option<&str>) -> String {
    let prefix = segment(directory);
    let delimiter = if depth == ListDepth::Directory { "&delimiter=%2F" } else { "" };
    let token = token.map(|token| format!("&pageToken={}", segment(token))).unwrap_or_default();
    format!("prefix={prefix}{delimiter}&fields=items(name,size),nextPageToken{token}")
}

/// Parses a page of the listing of `directory`.
pub(super) fn parse_page(body: &[u8], directory: &str, depth: ListDepth) -> ParsedPage<ListEntry> {
    let page: Objects = serde_json::from_slice(body)?;
    let objects = page.items.iter().filter_map(|object| {
        let len_bytes = object.size.as_ref().and_then(|size| size.parse().ok());
        listed_object(directory, &object.name, len_bytes.unwrap_or_default(), depth)
    });
    Ok(ListingPage { items: objects.collect(), next: page.next_page_token })
}

/// The checksum in an object's metadata: CRC-32C in Base64, big-endian.
pub(super) fn checksum(body: &[u8]) -> Option<Checksum> {
    let checksums: Checksums = serde_json::from_slice(body).ok()?;
    let bytes = STANDARD.decode(checksums.crc32c?).ok()?;
    Some(Checksum::Crc32c(u32::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_to_the_last() {
        let first = query("a b/", ListDepth::Directory, None);
        assert!(first.starts_with("prefix=a%20b%2F&delimiter=%2F"), "{first}");
        let page = br#"{"items": [{"name": "a b/"}, {"name": "a b/x"}, {"name": "a b/c/y"},
            {"name": "elsewhere"}], "nextPageToken": "t+/="}"#;
        let page = parse_page(page, "a b/", ListDepth::Directory).unwrap();
        let second = query("a b/", ListDepth::Directory, page.next.as_deref());
        assert!(second.ends_with("&pageToken=t%2B%2F%3D"), "{second}");
        let last = br#"{"items": [{"name": "a b/z", "size": "12"}]}"#;
        let last = parse_page(last, "a b/", ListDepth::Directory).unwrap();
        assert_eq!(last.next, None);
        assert_eq!(last.items[0], ListEntry { name: "z".to_owned(), len_bytes: 12 });
        let names = [page.items, last.items].concat().into_iter().map(|object| object.name);
        assert_eq!(names.collect::<Vec<_>>(), ["x", "z"]);
        let tree = query("a/", ListDepth::Tree, None);
        assert!(tree.starts_with("prefix=a%2F&fields="), "{tree}");
    }

    #[test]
    fn bad_pages_are_errors() {
        for bad in ["", "[]", "<html>", r#"{"items": 3}"#] {
            assert!(parse_page(bad.as_bytes(), "", ListDepth::Directory).is_err(), "{bad}");
        }
        assert!(parse_page(b"{}", "", ListDepth::Directory).unwrap().items.is_empty());
    }

    #[test]
    fn checksums_are_big_endian() {
        let sum = checksum(br#"{"crc32c": "4waSgw=="}"#);
        assert_eq!(sum, Some(Checksum::Crc32c(0xE306_9283)));
        for none in ["{}", r#"{"crc32c": "AAA="}"#, r#"{"crc32c": "?"}"#, "no"] {
            assert_eq!(checksum(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn any_bytes_are_a_page_or_an_error() {
        let examples = [
            r#"{"items": [{"name": "a b/x", "size": "12"}, {"name": "a b/"}], "nextPageToken": "t+/="}"#,
            r#"{"crc32c": "4waSgw=="}"#,
        ];
        crate::test_fuzz::never_panics("pages of Google Cloud Storage", &examples, |body| {
            drop(parse_page(body, "a b/", ListDepth::Directory));
            checksum(body);
        });
    }
}
