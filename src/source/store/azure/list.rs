//! Pages of a listing of blobs (List Blobs, in XML).

use crate::error::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// A page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Names and lengths in bytes of blobs.
    pub blobs: Vec<(String, u64)>,
    /// Where the next page begins, if there is one.
    pub marker: Option<String>,
}

impl Page {
    /// The page that is written in `body`.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) for what is no page.
    pub fn read(body: &[u8]) -> Result<Self> {
        let fail = || {
            let sentence = "the server's listing cannot be read; is this Azure Blob Storage?";
            Error::new(ErrorKind::Io, sentence)
        };
        let text = std::str::from_utf8(body).map_err(|error| fail().with_source(error))?;
        let text = text.trim_start_matches('\u{feff}');
        let mut reading = Reading::default();
        let mut reader = Reader::from_str(text);
        loop {
            match reader.read_event().map_err(|error| fail().with_source(error))? {
                Event::Start(tag) => reading.start(&tag),
                Event::Text(text) => reading.text.push_str(&text),
                Event::CData(text) => reading.text.push_str(&text),
                Event::GeneralRef(reference) => reading.text.push_str(&resolved(&reference)),
                Event::End(_) => reading.end(),
                Event::Eof => break,
                _ => {}
            }
        }
        reading.page.filter(|_| reading.path.is_empty()).ok_or_else(fail)
    }
}

/// How far the document was read.
#[derive(Default)]
struct Reading {
    /// The elements around, the outermost first.
    path: Vec<String>,
    /// Of the innermost one.
    text: String,
    /// Whether the name is percent-encoded, as one is that XML cannot hold.
    encoded: bool,
    /// The blob's name and length, as far as they were read.
    blob: (String, u64),
    page: Option<Page>,
}

impl Reading {
    fn start(&mut self, tag: &BytesStart) {
        let name: &str = tag.local_name().into_inner();
        if self.path.is_empty() && name == "EnumerationResults" {
            self.page = Some(Page::default());
        }
        self.encoded = tag.attributes().flatten().any(|attribute| {
            attribute.key.local_name().into_inner() == "Encoded" && &*attribute.value == "true"
        });
        self.path.push(name.to_owned());
        self.text.clear();
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        if let Some(page) = &mut self.page {
            match path.as_slice() {
                [_, "Blobs", "Blob", "Name"] if self.encoded => {
                    self.blob.0 = percent_decode_str(&text).decode_utf8_lossy().into_owned();
                }
                [_, "Blobs", "Blob", "Name"] => self.blob.0 = text,
                [_, "Blobs", "Blob", "Properties", "Content-Length"] => {
                    self.blob.1 = text.trim().parse().unwrap_or_default();
                }
                [_, "Blobs", "Blob"] => page.blobs.push(std::mem::take(&mut self.blob)),
                [_, "NextMarker"] if !text.is_empty() => page.marker = Some(text),
                _ => {}
            }
        }
        self.path.pop();
    }
}

/// The text that a reference (`&amp;`, `&#x20;`) stands for.
fn resolved(reference: &BytesRef) -> String {
    match reference.resolve_char_ref() {
        Ok(Some(char)) => char.to_string(),
        _ => resolve_predefined_entity(reference).unwrap_or_default().to_owned(),
    }
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
        let page = Page::read(body.as_bytes()).unwrap();
        let blobs = [("m/a&b <.safetensors", 12), ("m/\u{fffe}", 0)];
        assert_eq!(page.blobs, blobs.map(|(name, len_bytes)| (name.to_owned(), len_bytes)));
        assert_eq!(page.marker.as_deref(), Some("2!8!x"));
        let last = b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
        assert_eq!(Page::read(last).unwrap(), Page::default());
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
            assert_eq!(Page::read(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Io, "{bad}");
        }
        assert!(Page::read(b"\xff").is_err());
    }
}
