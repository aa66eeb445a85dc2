//! Listings: the files of one directory, in pages, with the SHA-256 of those in large-file storage.

use crate::error::{Error, ErrorKind, Result};
use crate::source::http::{Client, ServerOrigin};
use crate::source::store::parts::{entry, get};
use crate::source::store::{ListDepth, ListEntry, Store};
use http::{HeaderMap, Uri, header};
use serde::Deserialize;
use std::sync::Arc;

/// The most of one page, of a thousand entries.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// No directory has more pages; a Hub that goes on and on is broken.
const PAGES_MAX: usize = 1000;

/// What is in a directory.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    /// From the root of the repository.
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

impl Listed {
    /// It as an entry of `directory`, if it is a file as deep there as `depth` says.
    pub fn entry_in(&self, directory: &str, depth: ListDepth) -> Option<ListEntry> {
        entry(directory, &self.path, self.size, depth).filter(|_| self.kind == "file")
    }

    /// The SHA-256 of the file, where the Hub keeps it.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        let digits = self.lfs.as_ref()?.oid.as_str();
        let digits = digits.strip_prefix("sha256:").unwrap_or(digits).as_bytes();
        let mut sum = [0; 32];
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != sum.len() || !rest.is_empty() {
            return None;
        }
        for (byte, pair) in sum.iter_mut().zip(pairs) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            *byte = (high? << 4 | low?) as u8;
        }
        Some(sum)
    }
}

/// All entries of the listing that begins at `first`.
///
/// # Errors
/// What the store says; [`Unsupported`](ErrorKind::Unsupported) for answers that are no listing.
pub(super) async fn read(
    client: &Arc<Client>,
    store: &dyn Store,
    doing: &str,
    first: Uri,
) -> Result<Vec<Listed>> {
    let fail = |what: &str| {
        let sentence = format!("cannot {doing}: {what}; check HF_ENDPOINT");
        Error::new(ErrorKind::Unsupported, sentence)
    };
    let mut entries = Vec::new();
    let mut url = first;
    for _ in 0..PAGES_MAX {
        let answer = client.fetch(store, doing, PAGE_BYTES_MAX, || Ok(get(url.clone()))).await?;
        let page: Vec<Listed> = serde_json::from_slice(answer.body())
            .map_err(|error| fail("the answer is no listing of the Hub").with_source(error))?;
        entries.extend(page);
        let Some(next) = next_page(answer.headers()) else {
            return Ok(entries);
        };
        // The token goes with it.
        let next =
            next.parse().ok().filter(|next| ServerOrigin::of(next) == ServerOrigin::of(&url));
        url = next.ok_or_else(|| fail("the rest of the listing is on another server"))?;
    }
    Err(fail("the listing has no end"))
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
    fn entries_give_names_and_sums() {
        let sum = "ab".repeat(32);
        let listed = |kind: &str, path: &str, oid: &str| -> Listed {
            let entry = serde_json::json!({
                "type": kind, "oid": "1", "size": 3, "path": path,
                "lfs": { "oid": oid, "size": 3, "pointerSize": 100 },
            });
            serde_json::from_value(entry).unwrap()
        };
        let file = listed("file", "a/b.safetensors", &sum);
        let expected = ListEntry { name: "b.safetensors".to_owned(), len_bytes: 3 };
        assert_eq!(file.entry_in("a/", ListDepth::Directory), Some(expected));
        assert_eq!(file.entry_in("", ListDepth::Directory), None);
        assert_eq!(file.entry_in("", ListDepth::Tree).unwrap().name, "a/b.safetensors");
        assert_eq!(file.sha256(), Some([0xab; 32]));
        assert_eq!(listed("file", "a", &format!("sha256:{sum}")).sha256(), Some([0xab; 32]));
        for wrong in ["", "ab", &sum[1..], &format!("{sum}a"), &sum.replace('b', "g")] {
            assert_eq!(listed("file", "a", wrong).sha256(), None, "{wrong}");
        }
        assert_eq!(listed("directory", "a", &sum).entry_in("", ListDepth::Directory), None);
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
}
