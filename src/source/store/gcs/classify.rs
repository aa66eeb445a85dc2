//! Classifies the error responses of Google Cloud Storage. The XML API describes errors in XML, the
//! JSON API in JSON.

use crate::error::{ErrorKind, option};
use crate::source::http::{ErrorAction, ErrorBody, ErrorResponse};

/// Decides what to do after `response` to a request for an object in `bucket`. `without` is the
/// reason why the request had no credentials, if it had none.
pub(super) fn classify(
    response: &ErrorResponse,
    bucket: &str,
    without: Option<String>,
) -> ErrorAction {
    let body = ErrorBody::parse(&response.body);
    let fail = |kind, remedy: &str| {
        ErrorAction::Fail(kind, format!("{}; {remedy}", body.describe(response.status)))
    };
    let says =
        |words: &[&str]| words.iter().any(|word| body.code == *word || body.message.contains(word));
    match response.status.as_u16() {
        400 | 401 | 403 if says(&["RequestTimeTooSkewed"]) => ErrorAction::CorrectClock,
        400 | 403 if says(&["UserProjectMissing", "requester pays", "userProject"]) => fail(
            ErrorKind::PermissionDenied,
            &format!(
                "the bucket needs a project that pays: give its name in the header \
                 x-goog-user-project by {}",
                option("header")
            ),
        ),
        403 if says(&["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"]) => {
            ErrorAction::Retry { throttled: true }
        }
        401 | 403 if without.is_some() => {
            let without = without.unwrap_or_default();
            let remedy = format!(
                "the request was sent without credentials ({without}); set \
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
        _ => response.default_action(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    fn classified(status: u16, body: &'static str, without: Option<&str>) -> ErrorAction {
        let status = StatusCode::from_u16(status).unwrap();
        let response = ErrorResponse { status, headers: HeaderMap::new(), body: body.into() };
        classify(&response, "my-bucket", without.map(str::to_owned))
    }

    #[test]
    fn errors_name_what_is_missing() {
        let no_key = "<?xml version='1.0'?><Error><Code>NoSuchKey</Code>\
            <Message>The specified key does not exist.</Message></Error>";
        let (kind, sentence) = classified(404, no_key, None).failed();
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(sentence.contains("NoSuchKey: The specified key"), "{sentence}");
        let no_bucket = r#"{"error": {"code": 404, "message": "The specified bucket does not exist.",
            "errors": [{"reason": "notFound"}]}}"#;
        let (_, sentence) = classified(404, no_bucket, None).failed();
        assert!(sentence.contains("no bucket my-bucket"), "{sentence}");
        assert_eq!(classified(404, "", None).failed().0, ErrorKind::NotFound);
    }

    #[test]
    fn without_credentials_the_places_are_listed() {
        let denied = "<Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>\
            Anonymous caller does not have storage.objects.get access</Details></Error>";
        for status in [401, 403] {
            let (kind, sentence) = classified(status, denied, Some("looked there")).failed();
            assert_eq!(kind, ErrorKind::PermissionDenied);
            assert!(sentence.contains("(looked there)"), "{sentence}");
            assert!(sentence.contains("Anonymous caller does not"), "{sentence}");
        }
        let (_, sentence) = classified(403, denied, None).failed();
        assert!(sentence.contains("Storage Object Viewer"), "{sentence}");
        assert_eq!(classified(401, "", None), ErrorAction::RenewCredentials);
    }

    #[test]
    fn rate_limits_are_retried() {
        let slow = r#"{"error": {"errors": [{"reason": "rateLimitExceeded"}]}}"#;
        assert_eq!(classified(403, slow, None), ErrorAction::Retry { throttled: true });
        assert_eq!(classified(429, "", None), ErrorAction::Retry { throttled: true });
        assert_eq!(classified(503, "", Some("none")), ErrorAction::Retry { throttled: true });
        assert_eq!(classified(500, "{", None), ErrorAction::Retry { throttled: false });
        let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        assert_eq!(classified(403, skewed, None), ErrorAction::CorrectClock);
        let pays = "<Error><Code>UserProjectMissing</Code></Error>";
        assert!(classified(400, pays, None).failed().1.contains("x-goog-user-project"));
    }
}
