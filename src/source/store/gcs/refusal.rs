//! What refusals of Google Cloud Storage mean: those of the XML API say it in XML, those of the
//! JSON API in JSON.

use super::super::said::{said, xml};
use crate::error::ErrorKind;
use crate::source::http::{ErrorAction, ErrorResponse};
use serde_json::Value;

/// What the server gave as its reason.
struct Reason {
    /// `NoSuchKey` (XML) or `notFound` (JSON).
    code: Option<String>,
    message: Option<String>,
}

/// What `refusal`, of an object in `bucket`, means. `without` says why the request went without
/// credentials, if it did.
pub(super) fn judge(refusal: &ErrorResponse, bucket: &str, without: Option<String>) -> ErrorAction {
    let reason = Reason::of(refusal);
    let fail = |kind, remedy: &str| {
        let said = said(refusal, reason.code.as_deref(), reason.message.as_deref());
        ErrorAction::Fail(kind, format!("{said}; {remedy}"))
    };
    let says = |words: &[&str]| {
        let message = reason.message.as_deref().unwrap_or_default();
        let code = reason.code.as_deref().unwrap_or_default();
        words.iter().any(|word| code == *word || message.contains(word))
    };
    match refusal.status.as_u16() {
        400 | 401 | 403 if says(&["RequestTimeTooSkewed"]) => ErrorAction::CorrectClock,
        400 | 403 if says(&["UserProjectMissing", "requester pays", "userProject"]) => fail(
            ErrorKind::PermissionDenied,
            "the bucket wants a project to pay: give --header 'x-goog-user-project: PROJECT'",
        ),
        403 if says(&["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"]) => {
            ErrorAction::Retry { throttled: true }
        }
        401 | 403 if without.is_some() => {
            let without = without.unwrap_or_default();
            let remedy = format!(
                "it was asked without credentials ({without}); set \
                 GOOGLE_APPLICATION_CREDENTIALS or run: gcloud auth application-default login"
            );
            fail(ErrorKind::PermissionDenied, &remedy)
        }
        401 => ErrorAction::RenewCredentials,
        400 if says(&["ExpiredToken"]) => ErrorAction::RenewCredentials,
        403 => fail(
            ErrorKind::PermissionDenied,
            "grant the account in use the role Storage Object Viewer of the bucket",
        ),
        404 if says(&["NoSuchBucket", "bucket does not exist"]) => {
            fail(ErrorKind::NotFound, &format!("there is no bucket {bucket}; check its name"))
        }
        404 => fail(ErrorKind::NotFound, "there is no such bucket or object; check the location"),
        _ => refusal.default_action(),
    }
}

impl Reason {
    fn of(refusal: &ErrorResponse) -> Self {
        if let Some(code) = xml(refusal, "Code") {
            // The details of a refused access say whose it was; the message does not.
            let message = xml(refusal, "Details").or_else(|| xml(refusal, "Message"));
            return Self { code: Some(code), message };
        }
        let body: Value = serde_json::from_slice(&refusal.body).unwrap_or_default();
        let text = |pointer| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self { code: text("/error/errors/0/reason"), message: text("/error/message") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    fn judged(status: u16, body: &'static str, without: Option<&str>) -> ErrorAction {
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = ErrorResponse { status, headers: HeaderMap::new(), body: body.into() };
        judge(&refusal, "my-bucket", without.map(str::to_owned))
    }

    #[test]
    fn what_is_missing_is_named() {
        let no_key = "<?xml version='1.0'?><Error><Code>NoSuchKey</Code>\
            <Message>The specified key does not exist.</Message></Error>";
        let (kind, sentence) = judged(404, no_key, None).failed();
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(sentence.contains("NoSuchKey: The specified key"), "{sentence}");
        let no_bucket = r#"{"error": {"code": 404, "message": "The specified bucket does not exist.",
            "errors": [{"reason": "notFound"}]}}"#;
        let (_, sentence) = judged(404, no_bucket, None).failed();
        assert!(sentence.contains("no bucket my-bucket"), "{sentence}");
        assert_eq!(judged(404, "", None).failed().0, ErrorKind::NotFound);
    }

    #[test]
    fn without_credentials_the_places_are_listed() {
        let denied = "<Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>\
            Anonymous caller does not have storage.objects.get access</Details></Error>";
        for status in [401, 403] {
            let (kind, sentence) = judged(status, denied, Some("looked there")).failed();
            assert_eq!(kind, ErrorKind::PermissionDenied);
            assert!(sentence.contains("(looked there)"), "{sentence}");
            assert!(sentence.contains("Anonymous caller does not"), "{sentence}");
        }
        let (_, sentence) = judged(403, denied, None).failed();
        assert!(sentence.contains("Storage Object Viewer"), "{sentence}");
        assert_eq!(judged(401, "", None), ErrorAction::RenewCredentials);
    }

    #[test]
    fn limits_are_waited_for() {
        let slow = r#"{"error": {"errors": [{"reason": "rateLimitExceeded"}]}}"#;
        assert_eq!(judged(403, slow, None), ErrorAction::Retry { throttled: true });
        assert_eq!(judged(429, "", None), ErrorAction::Retry { throttled: true });
        assert_eq!(judged(503, "", Some("none")), ErrorAction::Retry { throttled: true });
        assert_eq!(judged(500, "{", None), ErrorAction::Retry { throttled: false });
        let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        assert_eq!(judged(403, skewed, None), ErrorAction::CorrectClock);
        let pays = "<Error><Code>UserProjectMissing</Code></Error>";
        assert!(judged(400, pays, None).failed().1.contains("x-goog-user-project"));
    }
}
