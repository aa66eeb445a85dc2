//! What a server said when it refused.

use crate::source::http::ErrorResponse;

/// A server's own words are not repeated beyond this.
const WORDS_MAX: usize = 200;

/// `the server answered 404 Not Found (NoSuchKey: The specified key does not exist)`.
pub(super) fn said(refusal: &ErrorResponse, code: Option<&str>, message: Option<&str>) -> String {
    let status = refusal.status;
    let words: Vec<_> = [code, message].into_iter().flatten().filter_map(first_line).collect();
    match words.as_slice() {
        [] => format!("the server answered {status}"),
        words => format!("the server answered {status} ({})", words.join(": ")),
    }
}

/// The first line of `text`, cut short, without its full stop.
fn first_line(text: &str) -> Option<String> {
    let line = text.lines().next()?.trim().trim_end_matches('.');
    let short: String = line.chars().filter(|char| !char.is_control()).take(WORDS_MAX).collect();
    (!short.is_empty()).then_some(short)
}

/// The text of the first XML element `name` in the body (`Code`, `Message`), where it is one of a
/// store's short error documents.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(super) fn xml(refusal: &ErrorResponse, name: &str) -> Option<String> {
    use quick_xml::events::Event;
    let text = std::str::from_utf8(&refusal.body).ok()?;
    let mut reader = quick_xml::Reader::from_str(text);
    let mut inside = false;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => inside = tag.local_name().as_ref() == name,
            Event::Text(text) if inside => return Some(text.to_string()),
            Event::End(_) => inside = false,
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    #[test]
    fn words_are_kept_short() {
        let refusal = |body: &'static [u8]| ErrorResponse {
            status: StatusCode::NOT_FOUND,
            headers: HeaderMap::new(),
            body: body.into(),
        };
        let said = |code, message| said(&refusal(b""), code, message);
        assert_eq!(said(None, Some("")), "the server answered 404 Not Found");
        assert_eq!(
            said(Some("NoSuchKey"), Some("Not there.\nRequestId: 1")),
            "the server answered 404 Not Found (NoSuchKey: Not there)"
        );
        assert!(said(None, Some(&"x".repeat(10_000))).len() < 300);
    }
}
