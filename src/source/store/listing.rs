//! Lists directories: the loop over the pages of a listing, and the selection of objects from it.

use super::requests::get;
use super::traits::{ListDepth, ListEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::source::http::{Client, RequestPolicy, SentSecrets};
use bytes::Bytes;
use http::{Response, Uri};
use std::error::Error as StdError;
use std::sync::Arc;

/// The maximum number of pages that are read. A page has a thousand names or more.
const PAGES_MAX: usize = 1000;
/// The maximum length of all pages together. A million names take about 200 MiB in XML.
const LISTING_BYTES_MAX: usize = 256 << 20;

/// A parsed page, or the reason why the response is not a page.
pub(super) type ParsedPage<T> =
    std::result::Result<ListingPage<T>, Box<dyn StdError + Send + Sync>>;

/// One page of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListingPage<T> {
    pub items: Vec<T>,
    /// The token that requests the next page; `None` or empty on the last page.
    pub next: Option<String>,
}

/// Requests a listing page by page, and returns the items of all pages. `url` makes the URL of a
/// page from its token (`None` for the first page); `not_a_listing` is the error for a response that
/// `parse` rejects. `doing` continues "cannot", as for [`Client::fetch`].
///
/// # Errors
/// The errors of the requests; `not_a_listing`; [`Io`](ErrorKind::Io) for a page that
/// leads to itself; [`Unsupported`](ErrorKind::Unsupported) for a listing of more than
/// [`PAGES_MAX`] pages or [`LISTING_BYTES_MAX`].
pub(super) async fn read_pages<T>(
    client: &Arc<Client>,
    policy: &dyn RequestPolicy,
    doing: &str,
    page_bytes_max: usize,
    not_a_listing: (ErrorKind, &str),
    url: impl Fn(Option<&str>) -> Result<Uri> + Send + Sync,
    parse: impl Fn(&Response<Bytes>) -> ParsedPage<T>,
) -> Result<Vec<T>> {
    let fail = |(kind, why)| Error::new(kind, format!("cannot {doing}: {why}"));
    let (mut items, mut token, mut left_bytes) = (Vec::new(), None, LISTING_BYTES_MAX);
    for _ in 0..PAGES_MAX {
        let build = || Ok(get(url(token.as_deref())?));
        let response = client.fetch(policy, doing, page_bytes_max, build).await?;
        left_bytes = left_bytes.saturating_sub(response.body().len());
        let page = parse(&response).map_err(|error| {
            let secrets = response.extensions().get::<SentSecrets>().cloned().unwrap_or_default();
            fail(not_a_listing).with_source(secrets.removed_from(&error.to_string()))
        })?;
        items.extend(page.items);
        match page.next.filter(|next| !next.is_empty()) {
            None => return Ok(items),
            Some(_) if left_bytes == 0 => break,
            next if next == token => {
                return Err(fail((ErrorKind::Io, "a page of the listing leads to itself")));
            }
            next => token = next,
        }
    }
    Err(too_long(doing))
}

fn too_long(doing: &str) -> Error {
    let (pages, size) = (PAGES_MAX, LISTING_BYTES_MAX >> 20);
    let sentence = format!(
        "cannot {doing}: the listing has more than {pages} pages or {size} MiB; name the \
         checkpoint's files, or a directory with fewer objects"
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

/// The object `path` of `len_bytes` as listed in `directory` (`""`, or ending in `/`). `None` where it
/// is not in the directory, is deeper than `depth`, or stands for a directory.
pub(super) fn listed_object(
    directory: &str,
    path: &str,
    len_bytes: u64,
    depth: ListDepth,
) -> Option<ListEntry> {
    let name = path.strip_prefix(directory).filter(|name| match depth {
        ListDepth::Directory => !name.is_empty() && !name.contains('/'),
        ListDepth::Tree => !name.is_empty() && !name.ends_with('/'),
    })?;
    Some(ListEntry { name: name.to_owned(), len_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_have_the_objects_of_the_requested_depth() {
        let names = |depth| {
            let paths = ["m/", "m/x", "m/a/y", "m/a/", "other"].into_iter();
            let objects = paths.filter_map(|path| listed_object("m/", path, 1, depth));
            objects.map(|object| object.name).collect::<Vec<_>>()
        };
        assert_eq!(names(ListDepth::Directory), ["x"]);
        assert_eq!(names(ListDepth::Tree), ["x", "a/y"]);
    }
}
