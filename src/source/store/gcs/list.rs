//! What the JSON API answers: pages of a listing, and the checksum of an object.

use super::super::parts::entry;
use super::super::traits::{Checksum, ListDepth, ListEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::location::escape::segment;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(rename = "nextPageToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    name: String,
    /// In digits.
    size: Option<String>,
}

#[derive(Deserialize)]
struct Sums {
    crc32c: Option<String>,
}

/// The pages of a listing, one after the other.
#[derive(Debug, Default)]
pub(super) enum Pages {
    #[default]
    First,
    Next(String),
    Done,
}

impl Pages {
    /// The query of the next page of the directory `key`, unless that was the last one.
    pub fn next_query(&self, key: &str, depth: ListDepth) -> Option<String> {
        let token = match self {
            Self::First => String::new(),
            Self::Next(token) => format!("&pageToken={}", segment(token)),
            Self::Done => return None,
        };
        let prefix = segment(key);
        let delimiter = if depth == ListDepth::Directory { "&delimiter=%2F" } else { "" };
        let query = format!("prefix={prefix}{delimiter}&fields=items(name,size),nextPageToken");
        Some(query + &token)
    }

    /// Adds what a page says is in the directory `key` to `entries`.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) for what is no page, and for a page that leads to itself.
    pub fn read(
        &mut self,
        body: &[u8],
        key: &str,
        depth: ListDepth,
        entries: &mut Vec<ListEntry>,
    ) -> Result<()> {
        let page: Page = serde_json::from_slice(body).map_err(|error| {
            let sentence = "the server's listing cannot be read; is this Google Cloud Storage?";
            Error::new(ErrorKind::Io, sentence).with_source(error)
        })?;
        entries.extend(page.items.iter().filter_map(|item| {
            let len_bytes = item.size.as_ref().and_then(|size| size.parse().ok());
            entry(key, &item.name, len_bytes.unwrap_or_default(), depth)
        }));
        let before = std::mem::replace(self, Self::Done);
        if let Some(token) = page.next.filter(|token| !token.is_empty()) {
            if matches!(&before, Self::Next(same) if *same == token) {
                let sentence = "a page of the server's listing leads to itself";
                return Err(Error::new(ErrorKind::Io, sentence));
            }
            *self = Self::Next(token);
        }
        Ok(())
    }
}

/// The checksum in an object's metadata: CRC-32C, in Base64, the highest byte first.
pub(super) fn checksum(body: &[u8]) -> Option<Checksum> {
    let sums: Sums = serde_json::from_slice(body).ok()?;
    let bytes = STANDARD.decode(sums.crc32c?).ok()?;
    Some(Checksum::Crc32c(u32::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_to_the_last() {
        let (mut pages, mut names) = (Pages::default(), Vec::new());
        let first = pages.next_query("a b/", ListDepth::Directory).unwrap();
        assert!(first.starts_with("prefix=a%20b%2F&delimiter=%2F"), "{first}");
        let page = br#"{"items": [{"name": "a b/"}, {"name": "a b/x"}, {"name": "a b/c/y"},
            {"name": "elsewhere"}], "nextPageToken": "t+/="}"#;
        pages.read(page, "a b/", ListDepth::Directory, &mut names).unwrap();
        let second = pages.next_query("a b/", ListDepth::Directory).unwrap();
        assert!(second.ends_with("&pageToken=t%2B%2F%3D"), "{second}");
        let last = br#"{"items": [{"name": "a b/z", "size": "12"}]}"#;
        pages.read(last, "a b/", ListDepth::Directory, &mut names).unwrap();
        assert_eq!(pages.next_query("a b/", ListDepth::Directory), None);
        assert_eq!(names[1], ListEntry { name: "z".to_owned(), len_bytes: 12 });
        let names: Vec<_> = names.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["x", "z"]);
        let tree = Pages::default().next_query("a/", ListDepth::Tree).unwrap();
        assert!(tree.starts_with("prefix=a%2F&fields="), "{tree}");
    }

    #[test]
    fn bad_pages_are_errors() {
        for bad in ["", "[]", "<html>", r#"{"items": 3}"#] {
            assert!(
                Pages::default()
                    .read(bad.as_bytes(), "", ListDepth::Directory, &mut Vec::new())
                    .is_err(),
                "{bad}"
            );
        }
        let (mut pages, page) = (Pages::default(), br#"{"nextPageToken": "again"}"#);
        pages.read(page, "", ListDepth::Directory, &mut Vec::new()).unwrap();
        assert!(pages.read(page, "", ListDepth::Directory, &mut Vec::new()).is_err());
        let mut empty = Vec::new();
        Pages::default().read(b"{}", "", ListDepth::Directory, &mut empty).unwrap();
        assert!(empty.is_empty());
    }

    #[test]
    fn checksums_are_big_endian() {
        let sum = checksum(br#"{"crc32c": "4waSgw=="}"#);
        assert_eq!(sum, Some(Checksum::Crc32c(0xE306_9283)));
        for none in ["{}", r#"{"crc32c": "AAA="}"#, r#"{"crc32c": "?"}"#, "no"] {
            assert_eq!(checksum(none.as_bytes()), None, "{none}");
        }
    }
}
