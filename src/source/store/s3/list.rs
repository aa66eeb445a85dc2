//! The names in a directory: `ListObjectsV2`, page by page, with `/` as the delimiter.

use super::{PAGE_BYTES_MAX, S3};
use crate::error::{Error, ErrorKind, Result};
use crate::source::http::Client;
use crate::source::store::parts::{child, get};
use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use std::sync::Arc;

/// A thousand names each.
const PAGES_MAX: usize = 1000;

/// One page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    keys: Vec<String>,
    is_encoded: bool,
    is_truncated: bool,
    next: Option<String>,
}

/// The names of the objects directly in `directory`, without it.
pub(super) async fn names(
    store: &S3,
    client: &Arc<Client>,
    directory: &str,
) -> Result<Vec<String>> {
    let (address, mut names) = (&store.0.address, Vec::new());
    let place = format!("s3://{}/{directory}", address.bucket());
    let doing = format!("list {place}");
    let mut next: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let build = || {
            let mut query = Vec::new();
            query.extend(next.as_deref().map(|token| ("continuation-token", token)));
            query.extend([("delimiter", "/"), ("encoding-type", "url"), ("list-type", "2")]);
            query.push(("prefix", directory));
            Ok(get(address.query_url(&store.region(), &query)?))
        };
        let answer = client.fetch(store, &doing, PAGE_BYTES_MAX, build).await?;
        let page = page(answer.body())
            .ok_or_else(|| strange(&place, "answers with what is no listing"))?;
        names.extend(page.names(directory));
        if !page.is_truncated {
            return Ok(names);
        }
        if page.next.is_none() || page.next == next {
            return Err(strange(&place, "does not say how its listing goes on"));
        }
        next = page.next;
    }
    let sentence = format!("{place} holds too many objects to list; name the checkpoint's files");
    Err(Error::new(ErrorKind::Unsupported, sentence))
}

fn strange(place: &str, what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("cannot list {place}: the server {what}; check the endpoint"))
}

impl Page {
    /// The names relative to `directory`, without what stands for a directory.
    fn names(&self, directory: &str) -> Vec<String> {
        let decoded = self.keys.iter().map(|key| match self.is_encoded {
            true => decode(key),
            false => key.clone(),
        });
        decoded.filter_map(|key| child(directory, &key).map(str::to_owned)).collect()
    }
}

/// The key that `text` encodes: S3 writes a blank as `+`.
fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// Reads a page; `None` for what is none.
fn page(body: &[u8]) -> Option<Page> {
    let mut reader = Reader::from_str(std::str::from_utf8(body).ok()?);
    let mut page = Page::default();
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => {
                path.push(tag.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(piece) => text.push_str(&piece.into_inner()),
            Event::CData(piece) => text.push_str(&piece.into_inner()),
            Event::GeneralRef(name) => match name.resolve_char_ref().ok()? {
                Some(character) => text.push(character),
                None => text.push_str(resolve_predefined_entity(&name)?),
            },
            Event::End(_) => {
                let names: Vec<_> = path.iter().map(String::as_str).collect();
                let value = std::mem::take(&mut text);
                match names.as_slice() {
                    ["ListBucketResult", "Contents", "Key"] => page.keys.push(value),
                    ["ListBucketResult", "EncodingType"] => page.is_encoded = value.trim() == "url",
                    ["ListBucketResult", "IsTruncated"] => {
                        page.is_truncated = value.trim() == "true";
                    }
                    ["ListBucketResult", "NextContinuationToken"] => page.next = Some(value),
                    ["ListBucketResult"] => return Some(page),
                    _ => {}
                }
                path.pop();
            }
            Event::Empty(tag) if path.is_empty() => {
                return (tag.local_name().as_ref() == "ListBucketResult").then_some(page);
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        let text = "<?xml version=\"1.0\"?>\n\
            <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Name>b</Name><Prefix>m/</Prefix><EncodingType>url</EncodingType>\
            <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b=</NextContinuationToken>\
            <Contents><Key>m/</Key><ETag>&quot;x&quot;</ETag></Contents>\
            <Contents><Key>m/a+b%2Bc%C3%A9</Key><Owner><ID>o</ID></Owner></Contents>\
            <Contents><Key>m/sub/x</Key></Contents>\
            <CommonPrefixes><Prefix>m/sub/</Prefix></CommonPrefixes></ListBucketResult>";
        let page = page(text.as_bytes()).unwrap();
        assert_eq!(page.next.as_deref(), Some("a&b="));
        assert!(page.is_truncated && page.is_encoded);
        assert_eq!(page.names("m/"), ["a b+c\u{e9}"]);
    }

    #[test]
    fn keys_of_stores_that_do_not_encode_are_taken_as_they_are() {
        let text = "<ListBucketResult><IsTruncated>false</IsTruncated>\
            <Contents><Key>a%20+&amp;&#233;&lt;</Key></Contents></ListBucketResult>";
        assert_eq!(page(text.as_bytes()).unwrap().names(""), ["a%20+&\u{e9}<"]);
        assert_eq!(page(b"<ListBucketResult/>"), Some(Page::default()));
    }

    #[test]
    fn what_is_no_page_is_none() {
        for text in [
            "",
            "<html><body>hello</body></html>",
            "<ListBucketResult><Contents><Key>a",
            "<ListBucketResult></Contents>",
            "<ListBucketResult>&unknown;</ListBucketResult>",
            "{}",
        ] {
            assert_eq!(page(text.as_bytes()), None, "{text}");
        }
        assert_eq!(page(b"\xff\xfe"), None);
    }
}
