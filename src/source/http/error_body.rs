//! The explanation that a server gives in an error response.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// The maximum number of characters of a server's message that are repeated.
const MESSAGE_MAX: usize = 200;

/// The fields of the body of an error response. Absent fields are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[cfg_attr(not(all(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
pub(crate) struct ErrorBody {
    pub code: String,
    pub message: String,
    /// GCS: who was denied access.
    pub details: String,
    /// S3: the region of the bucket.
    pub region: String,
    /// Azure: why a signature was refused. May quote the signature.
    pub authentication_error_detail: String,
    /// STS nests its error in an outer element.
    error: Option<Box<Self>>,
}

impl ErrorBody {
    /// A body with only these two fields.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), ..Self::default() }
    }

    /// Parses the body of an error response: a document of XML or JSON. All fields are empty where
    /// `body` is neither.
    pub fn parse(body: &[u8]) -> Self {
        let mut xml = Self::from_xml(body);
        if !xml.code.is_empty() {
            if !xml.details.is_empty() {
                // The details of a denial name the account, unlike the message.
                xml.message = std::mem::take(&mut xml.details);
            }
            return xml;
        }
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |pointers: &[&str]| {
            let found = pointers.iter().find_map(|pointer| json.pointer(pointer)?.as_str());
            found.unwrap_or_default()
        };
        Self::new(
            text(&["/error/errors/0/reason", "/error/code", "/code"]),
            text(&["/error/message", "/error", "/message", "/detail"]),
        )
    }

    /// Parses an XML error document; all fields are empty where `body` is not one.
    pub fn from_xml(body: &[u8]) -> Self {
        let mut document: Self = quick_xml::de::from_reader(body).unwrap_or_default();
        document.error.take().map_or(document, |error| *error)
    }

    /// `the server answered 404 Not Found (NoSuchKey: The specified key does not exist)`.
    pub fn describe(&self, status: StatusCode) -> String {
        let parts = [&self.code, &self.message].map(|text| first_line(text));
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        match parts.is_empty() {
            true => format!("the server answered {status}"),
            false => format!("the server answered {status} ({})", parts.join(": ")),
        }
    }
}

/// The first line of `text` without its full stop, shortened.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    line.chars().filter(|char| !char.is_control()).take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_short() {
        let describe = |code: &str, message: &str| {
            ErrorBody::new(code, message).describe(StatusCode::NOT_FOUND)
        };
        assert_eq!(describe("", ""), "the server answered 404 Not Found");
        assert_eq!(
            describe("NoSuchKey", "Not there.\nRequestId: 1"),
            "the server answered 404 Not Found (NoSuchKey: Not there)"
        );
        assert!(describe("", &"x".repeat(10_000)).len() < 300);
    }

    #[test]
    fn bodies_of_xml_and_json_explain_and_pages_do_not() {
        for (body, code, message) in [
            (
                "<?xml version='1.0'?><Error><Code>AccessDenied</Code>\
                 <Message>Request has expired</Message></Error>",
                "AccessDenied",
                "Request has expired",
            ),
            (r#"{"error":"slow down"}"#, "", "slow down"),
            (r#"{"error":{"code":"a","message":"b"}}"#, "a", "b"),
            (r#"{"detail":"no"}"#, "", "no"),
            ("<html><body>Forbidden</body></html>", "", ""),
            ("Forbidden", "", ""),
            ("", "", ""),
        ] {
            let parsed = ErrorBody::parse(body.as_bytes());
            assert_eq!((&*parsed.code, &*parsed.message), (code, message), "{body}");
        }
    }

    #[test]
    fn any_bytes_are_described_in_a_line() {
        let examples = [
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no\nway</Message>\
             <AuthenticationErrorDetail>x</AuthenticationErrorDetail></Error>",
            r#"{"error": {"code": 403, "message": "no", "errors": [{"reason": "x"}]}}"#,
            "<html><title>no</title></html>",
        ];
        crate::test_fuzz::never_panics("bodies of errors", &examples, |body| {
            let told = ErrorBody::parse(body).describe(StatusCode::FORBIDDEN);
            assert!(told.len() < 4096 && !told.contains('\n'), "{told:?}");
        });
    }

    #[test]
    fn errors_within_errors_do_not_overflow_the_stack() {
        for element in ["Error", "Code", "x"] {
            let (open, close) = (format!("<{element}>"), format!("</{element}>"));
            let body = format!("{}<Code>x</Code>{}", open.repeat(20_000), close.repeat(20_000));
            assert!(ErrorBody::parse(body.as_bytes()).code.is_empty());
        }
        let body = format!("{}{}", "[".repeat(30_000), "{\"error\":".repeat(3000));
        assert!(ErrorBody::parse(body.as_bytes()).code.is_empty());
    }
}
