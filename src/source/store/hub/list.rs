//! Listings: the files of a directory, page by page, with the SHA-256 of files in large-file storage.

use crate::error::{Error, ErrorKind, Result};
use crate::source::http::{Client, RequestPolicy, ServerOrigin};
use crate::source::store::listing::{ListingPage, listed_object, read_pages};
use crate::source::store::traits::{ListDepth, ListEntry};
use http::{HeaderMap, Uri, header};
use serde::Deserialize;
use std::sync::Arc;

/// The maximal size of a page, which has a thousand entries.
const PAGE_BYTES_MAX: usize = 16 << 20;
const NOT_A_LISTING: (ErrorKind, &str) =
    (ErrorKind::Unsupported, "the response is not a listing of the Hub; check HF_ENDPOINT");

/// An entry of a directory.
#[derive(Debug, Deserialize)]
pub(super) struct TreeEntry {
    /// The path from the root of the repository.
    pub path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    oid: String,
}

impl TreeEntry {
    /// The entry as a file of `directory`; `None` if it is not a file or is deeper than `depth`.
    pub fn listed_in(&self, directory: &str, depth: ListDepth) -> Option<ListEntry> {
        listed_object(directory, &self.path, self.size, depth).filter(|_| self.kind == "file")
    }

    /// The SHA-256 of the file, if the Hub has it.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        let digits = self.lfs.as_ref()?.oid.as_str();
        let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        bytes.filter(|_| is_hex)?.try_into().ok()
    }
}

/// All entries of the listing whose first page is `first`, on the server at `origin`. `doing`
/// continues "cannot".
///
/// # Errors
/// The errors of [`read_pages`].
pub(super) async fn read(
    client: &Arc<Client>,
    policy: &dyn RequestPolicy,
    origin: &ServerOrigin,
    doing: &str,
    first: Uri,
) -> Result<Vec<TreeEntry>> {
    let url = |next: Option<&str>| match next {
        Some(next) => next.parse().map_err(|_| Error::invalid_input("the next page has no URL")),
        None => Ok(first.clone()),
    };
    read_pages(client, policy, doing, PAGE_BYTES_MAX, NOT_A_LISTING, url, |response| {
        let items = serde_json::from_slice(response.body())?;
        let next = next_page(response.headers());
        // The request for the next page has the token.
        if !next.is_none_or(|next| is_at(next, origin)) {
            return Err("the rest of the listing is on another server".into());
        }
        Ok(ListingPage { items, next: next.map(str::to_owned) })
    })
    .await
}

/// Whether `url` is a URL of the server at `origin`.
fn is_at(url: &str, origin: &ServerOrigin) -> bool {
    url.parse().is_ok_and(|url| ServerOrigin::of(&url) == *origin)
}

/// The target of `Link: <target>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<&str> {
    let links = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let mut links = links.flat_map(|value| value.split(','));
    let link = links.find(|link| link.contains("rel=\"next\""))?;
    let (target, _) = link.trim().strip_prefix('<')?.split_once('>')?;
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_names_and_checksums() {
        let sum = "ab".repeat(32);
        let listed = |kind: &str, path: &str, oid: &str| -> TreeEntry {
            let entry = serde_json::json!({
                "type": kind, "oid": "1", "size": 3, "path": path,
                "lfs": { "oid": oid, "size": 3, "pointerSize": 100 },
            });
            serde_json::from_value(entry).unwrap()
        };
        let file = listed("file", "a/b.safetensors", &sum);
        let expected = ListEntry { name: "b.safetensors".to_owned(), len_bytes: 3 };
        assert_eq!(file.listed_in("a/", ListDepth::Directory), Some(expected));
        assert_eq!(file.listed_in("", ListDepth::Directory), None);
        assert_eq!(file.listed_in("", ListDepth::Tree).unwrap().name, "a/b.safetensors");
        assert_eq!(file.sha256(), Some([0xab; 32]));
        assert_eq!(listed("file", "a", &format!("sha256:{sum}")).sha256(), Some([0xab; 32]));
        for wrong in ["", "ab", &sum[1..], &format!("{sum}a"), &sum.replace('b', "g")] {
            assert_eq!(listed("file", "a", wrong).sha256(), None, "{wrong}");
        }
        assert_eq!(listed("directory", "a", &sum).listed_in("", ListDepth::Directory), None);
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        let of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::LINK, text.parse().unwrap())]);
            next_page(&headers).map(str::to_owned)
        };
        assert_eq!(of("<http://h/a?b=c>; rel=\"next\"").as_deref(), Some("http://h/a?b=c"));
        assert_eq!(
            of("<http://h/1>; rel=\"prev\", <http://h/2>; rel=\"next\"").unwrap(),
            "http://h/2"
        );
        assert_eq!(of("<http://h/1>; rel=\"prev\""), None);
        assert_eq!(of("nonsense; rel=\"next\""), None);
    }

    #[test]
    fn any_bytes_are_a_page_or_an_error() {
        let examples = [
            r#"[{"type": "file", "path": "a/b.safetensors", "size": 12, "lfs": {"oid": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}]"#,
            r#"[{"type": "directory", "path": "a", "oid": "\u00e9"}]"#,
        ];
        crate::test_fuzz::never_panics("pages of the Hub", &examples, |body| {
            let page: Vec<TreeEntry> = serde_json::from_slice(body).unwrap_or_default();
            for entry in page {
                entry.listed_in("a/", ListDepth::Tree);
                entry.sha256();
            }
        });
    }
}
