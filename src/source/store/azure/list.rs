//! Pages of a listing of blobs (List Blobs, in XML).

use crate::error::ErrorKind;
use crate::source::store::listing::{ListingPage, ParsedPage, listed_object};
use crate::source::store::traits::{ListDepth, ListEntry};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::borrow::Cow;

pub(super) const NOT_A_LISTING: (ErrorKind, &str) =
    (ErrorKind::Io, "the response is not a listing of Azure Blob Storage; check the endpoint");

#[derive(Deserialize)]
enum Document {
    EnumerationResults(EnumerationResults),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct EnumerationResults {
    blobs: Blobs,
    next_marker: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Blobs {
    blob: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: Name,
    #[serde(default)]
    properties: Properties,
}

#[derive(Deserialize)]
struct Name {
    /// Whether the name is percent-encoded, since XML cannot represent it.
    #[serde(rename = "@Encoded", default)]
    is_encoded: bool,
    #[serde(rename = "$text", default)]
    text: String,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length", default)]
    content_length: String,
}

/// Parses a page of the listing of `directory`.
pub(super) fn parse_page(body: &[u8], directory: &str, depth: ListDepth) -> ParsedPage<ListEntry> {
    let Document::EnumerationResults(page) = quick_xml::de::from_reader(body)?;
    let objects = page.blobs.blob.iter().filter_map(|Blob { name, properties }| {
        let path = match name.is_encoded {
            true => percent_decode_str(&name.text).decode_utf8_lossy(),
            false => Cow::from(&name.text),
        };
        let len_bytes = properties.content_length.trim().parse().unwrap_or_default();
        listed_object(directory, &path, len_bytes, depth)
    });
    Ok(ListingPage { items: objects.collect(), next: page.next_marker })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_marker_are_read() {
        let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\
            <EnumerationResults ServiceEndpoint=\"https://a\" ContainerName=\"c\"><Prefix>m/</Prefix>\
            <Blobs><Blob><Name>m/a&amp;b&#x20;&lt;.safetensors</Name><Properties><Name>no</Name>\
            <Content-Length>12</Content-Length></Properties></Blob><BlobPrefix><Name>m/deep/</Name></BlobPrefix>\
            <Blob><Name Encoded=\"true\">m/%EF%BF%BE</Name></Blob></Blobs>\
            <NextMarker>2!8!x</NextMarker></EnumerationResults>";
        let page = parse_page(body.as_bytes(), "", ListDepth::Tree).unwrap();
        let blobs = [("m/a&b <.safetensors", 12), ("m/\u{fffe}", 0)];
        let blobs = blobs.map(|(name, len_bytes)| ListEntry { name: name.to_owned(), len_bytes });
        assert_eq!(page.items, blobs);
        assert_eq!(page.next.as_deref(), Some("2!8!x"));
        let last = b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
        let last = parse_page(last, "", ListDepth::Tree).unwrap();
        assert!(last.items.is_empty() && last.next.is_none_or(|next| next.is_empty()));
    }

    #[test]
    fn other_documents_are_errors() {
        for bad in [
            "",
            "{}",
            "<html></html>",
            "<EnumerationResults><Blobs>",
            "<EnumerationResults></Blobs>",
            "<Error><Code>x</Code></Error>",
        ] {
            assert!(parse_page(bad.as_bytes(), "", ListDepth::Tree).is_err(), "{bad}");
        }
        assert!(parse_page(b"\xff", "", ListDepth::Tree).is_err());
        assert_eq!(NOT_A_LISTING.0, ErrorKind::Io);
    }

    #[test]
    fn any_bytes_are_a_page_or_an_error() {
        let examples = [
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs><Blob>\
             <Name Encoded=\"true\">m/%EF%BF%BE</Name><Properties><Content-Length>12\
             </Content-Length></Properties></Blob><BlobPrefix><Name>m/deep/</Name></BlobPrefix>\
             </Blobs><NextMarker>2!8!x</NextMarker></EnumerationResults>",
            "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>",
        ];
        crate::test_fuzz::never_panics("pages of Azure", &examples, |body| {
            drop(parse_page(body, "m/", ListDepth::Tree));
        });
    }
}
