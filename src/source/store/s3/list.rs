//! What is in a directory: `ListObjectsV2`, page by page, with `/` as the delimiter or, for all that is
//! below it, without.

use super::{PAGE_BYTES_MAX, S3};
use crate::error::{Error, ErrorKind, Result};
use crate::source::http::Client;
use crate::source::store::parts::{entry, get};
use crate::source::store::{ListDepth, ListEntry};
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
    /// Keys and lengths in bytes.
    objects: Vec<(String, u64)>,
    is_encoded: bool,
    is_truncated: bool,
    next: Option<String>,
}

/// The objects in `directory`.
pub(super) async fn entries(
    store: &S3,
    client: &Arc<Client>,
    directory: &str,
    depth: ListDepth,
) -> Result<Vec<ListEntry>> {
    let (address, mut entries) = (&store.0.address, Vec::new());
    let place = format!("s3://{}/{directory}", address.bucket());
    let doing = format!("list {place}");
    let mut next: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let build = || {
            let mut query = Vec::new();
            query.extend(next.as_deref().map(|token| ("continuation-token", token)));
            query.extend((depth == ListDepth::Directory).then_some(("delimiter", "/")));
            query.extend([("encoding-type", "url"), ("list-type", "2")]);
            query.push(("prefix", directory));
            Ok(get(address.query_url(&store.region(), &query)?))
        };
        let answer = client.fetch(store, &doing, PAGE_BYTES_MAX, build).await?;
        let page = page(answer.body())
            .ok_or_else(|| strange(&place, "answers with what is no listing"))?;
        entries.extend(page.entries(directory, depth));
        if !page.is_truncated {
            return Ok(entries);
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
    /// What is in `directory`, without what stands for a directory.
    fn entries(&self, directory: &str, depth: ListDepth) -> Vec<ListEntry> {
        let decoded = self.objects.iter().map(|(key, len_bytes)| match self.is_encoded {
            true => (decode(key), *len_bytes),
            false => (key.clone(), *len_bytes),
        });
        decoded.filter_map(|(key, len_bytes)| entry(directory, &key, len_bytes, depth)).collect()
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
    let mut object = (String::new(), 0);
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
                    ["ListBucketResult", "Contents", "Key"] => object.0 = value,
                    ["ListBucketResult", "Contents", "Size"] => {
                        object.1 = value.trim().parse().ok()?;
                    }
                    ["ListBucketResult", "Contents"] => {
                        page.objects.push(std::mem::take(&mut object));
                    }
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
            <Contents><Key>m/a+b%2Bc%C3%A9</Key><Owner><ID>o</ID></Owner>\
            <Size>12</Size></Contents>\
            <Contents><Key>m/sub/x</Key></Contents>\
            <CommonPrefixes><Prefix>m/sub/</Prefix></CommonPrefixes></ListBucketResult>";
        let page = page(text.as_bytes()).unwrap();
        assert_eq!(page.next.as_deref(), Some("a&b="));
        assert!(page.is_truncated && page.is_encoded);
        let name = "a b+c\u{e9}".to_owned();
        let expected = [ListEntry { name, len_bytes: 12 }];
        assert_eq!(page.entries("m/", ListDepth::Directory), expected);
        let names: Vec<_> =
            page.entries("m/", ListDepth::Tree).into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a b+c\u{e9}", "sub/x"]);
    }

    #[test]
    fn keys_of_stores_that_do_not_encode_are_taken_as_they_are() {
        let text = "<ListBucketResult><IsTruncated>false</IsTruncated>\
            <Contents><Key>a%20+&amp;&#233;&lt;</Key></Contents></ListBucketResult>";
        let entries = page(text.as_bytes()).unwrap().entries("", ListDepth::Directory);
        assert_eq!(entries[0].name, "a%20+&\u{e9}<");
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
