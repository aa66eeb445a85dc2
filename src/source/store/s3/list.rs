//! Listings of a bucket: `ListObjectsV2`, page by page. The delimiter `/` limits a listing to the
//! objects directly in a directory.

use super::bucket::S3Bucket;
use crate::error::{ErrorKind, Result};
use crate::source::http::Client;
use crate::source::store::listing::{ListingPage, ParsedPage, listed_object, read_pages};
use crate::source::store::traits::{ListDepth, ListEntry};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;

/// The maximum length of a page, which exceeds the length of any page of a thousand keys.
const PAGE_BYTES_MAX: usize = 16 << 20;
const NOT_A_LISTING: (ErrorKind, &str) =
    (ErrorKind::Io, "the response is not a listing of S3; check the endpoint");

#[derive(Deserialize)]
enum Document {
    ListBucketResult(ListBucketResult),
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListBucketResult {
    contents: Vec<Object>,
    encoding_type: String,
    is_truncated: String,
    next_continuation_token: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    #[serde(default)]
    size: u64,
}

/// The objects in `directory`.
///
/// # Errors
/// The errors of [`read_pages`].
pub(super) async fn entries(
    bucket: &S3Bucket,
    client: &Arc<Client>,
    directory: &str,
    depth: ListDepth,
) -> Result<Vec<ListEntry>> {
    let doing = format!("list s3://{}/{directory}", bucket.address.bucket());
    let url = |token: Option<&str>| {
        // The parameters are sorted by name, as the signature requires.
        let mut query = Vec::new();
        query.extend(token.map(|token| ("continuation-token", token)));
        query.extend((depth == ListDepth::Directory).then_some(("delimiter", "/")));
        query.extend([("encoding-type", "url"), ("list-type", "2"), ("prefix", directory)]);
        bucket.address.query_url(&bucket.region(), &query)
    };
    read_pages(client, bucket, &doing, PAGE_BYTES_MAX, NOT_A_LISTING, url, |response| {
        let Document::ListBucketResult(page) = quick_xml::de::from_reader(&response.body()[..])?;
        page.into_page(directory, depth)
    })
    .await
}

impl ListBucketResult {
    fn into_page(self, directory: &str, depth: ListDepth) -> ParsedPage<ListEntry> {
        let is_truncated = self.is_truncated.trim() == "true";
        if is_truncated && self.next_continuation_token.is_none() {
            return Err("the page is truncated, but has no NextContinuationToken".into());
        }
        let is_encoded = self.encoding_type.trim() == "url";
        let objects = self.contents.iter().filter_map(|object| {
            let key = if is_encoded { decode(&object.key) } else { Cow::from(&object.key) };
            listed_object(directory, &key, object.size, depth)
        });
        let items = objects.collect();
        Ok(ListingPage { items, next: self.next_continuation_token.filter(|_| is_truncated) })
    }
}

/// Decodes a key of the encoding type `url`, in which S3 writes a space as `+`.
fn decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: &[u8]) -> Option<ListBucketResult> {
        let Document::ListBucketResult(page) = quick_xml::de::from_reader(body).ok()?;
        Some(page)
    }

    fn objects(body: &[u8], directory: &str, depth: ListDepth) -> Vec<ListEntry> {
        page(body).unwrap().into_page(directory, depth).unwrap().items
    }

    #[test]
    fn pages_are_read() {
        let text = "<?xml version=\"1.0\"?>\n\
            <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Name>b</Name><Prefix>m/</Prefix><EncodingType>url</EncodingType>\
            <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b=</NextContinuationToken>\
            <Contents><Key>m/</Key><ETag>&quot;x&quot;</ETag></Contents>\
            <Contents><Key>m/a+b%2Bc%C3%A9</Key><Owner><ID>o</ID></Owner>\
            <Size>12</Size></Contents>\
            <CommonPrefixes><Prefix>m/sub/</Prefix></CommonPrefixes>\
            <Contents><Key>m/sub/x</Key></Contents></ListBucketResult>";
        let parsed = page(text.as_bytes()).unwrap();
        assert_eq!(parsed.next_continuation_token.as_deref(), Some("a&b="));
        assert_eq!((&*parsed.is_truncated, &*parsed.encoding_type), ("true", "url"));
        let next = parsed.into_page("m/", ListDepth::Directory).unwrap().next;
        assert_eq!(next.as_deref(), Some("a&b="));
        let name = "a b+c\u{e9}".to_owned();
        let expected = [ListEntry { name, len_bytes: 12 }];
        assert_eq!(objects(text.as_bytes(), "m/", ListDepth::Directory), expected);
        let tree = objects(text.as_bytes(), "m/", ListDepth::Tree);
        let names: Vec<_> = tree.into_iter().map(|object| object.name).collect();
        assert_eq!(names, ["a b+c\u{e9}", "sub/x"]);
    }

    #[test]
    fn keys_of_stores_that_do_not_encode_are_not_decoded() {
        let text = "<ListBucketResult><IsTruncated>false</IsTruncated>\
            <Contents><Key>a%20+&amp;&#233;&lt;</Key></Contents></ListBucketResult>";
        let objects = objects(text.as_bytes(), "", ListDepth::Directory);
        assert_eq!(objects[0].name, "a%20+&\u{e9}<");
        assert_eq!(page(b"<ListBucketResult/>"), Some(ListBucketResult::default()));
    }

    #[test]
    fn other_documents_are_not_pages() {
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

    #[test]
    fn any_bytes_are_a_page_or_an_error() {
        let examples = [
            "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>a&amp;b=</NextContinuationToken><Contents><Key>m/a+b%2Bc%C3\
             </Key><Size>12</Size></Contents><Contents><Key>m/</Key></Contents></ListBucketResult>",
            "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b \"c\">]><ListBucketResult/>",
        ];
        crate::test_fuzz::never_panics("pages of S3", &examples, |body| {
            let page = page(body).map(|page| page.into_page("m/", ListDepth::Tree));
            drop(page);
        });
    }
}
