//! What S3 means by a refusal. Its error documents name a code; answers to HEAD have no document,
//! and some compatible stores send none either: then the status has to do.

use super::S3;
use crate::error::ErrorKind;
use crate::source::http::{ErrorAction, ErrorResponse};
use crate::source::store::said::{self, xml};

/// What follows from `refusal`.
pub(super) fn judge(store: &S3, refusal: &ErrorResponse) -> ErrorAction {
    let code = xml(refusal, "Code").unwrap_or_default();
    if let Some(verdict) = elsewhere(store, refusal, &code) {
        return verdict;
    }
    match code.as_str() {
        "SlowDown"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "ServiceUnavailable" => ErrorAction::Retry { throttled: true },
        "InternalError" | "RequestTimeout" | "OperationAborted" => {
            ErrorAction::Retry { throttled: false }
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
            ErrorAction::RenewCredentials
        }
        "RequestTimeTooSkewed" => ErrorAction::CorrectClock,
        _ => ended(store, refusal, &code),
    }
}

/// Where the bucket is in another region.
fn elsewhere(store: &S3, refusal: &ErrorResponse, code: &str) -> Option<ErrorAction> {
    let status = refusal.status.as_u16();
    let told = refusal.header("x-amz-bucket-region").map(str::to_owned);
    let told = told.or_else(|| xml(refusal, "Region"));
    let moved = [301, 302, 307, 308].contains(&status)
        || code == "AuthorizationHeaderMalformed"
        || code == "IllegalLocationConstraintException"
        || (status == 400 && code.is_empty() && told.is_some());
    if !moved {
        return None;
    }
    // Also when it is known by now: this request may have been made before.
    if told.is_some_and(|region| store.learn(&region)) {
        return Some(ErrorAction::RetryOnce("region"));
    }
    let sentence = format!(
        "the bucket is elsewhere: {}, but not where; name its region with AWS_REGION, and check the \
         endpoint if one is set",
        said(refusal)
    );
    Some(ErrorAction::Fail(ErrorKind::InvalidInput, sentence))
}

/// Where asking again does not help.
fn ended(store: &S3, refusal: &ErrorResponse, code: &str) -> ErrorAction {
    let (kind, what, remedy) = match (refusal.status.as_u16(), code) {
        (_, "NoSuchBucket") if store.0.address.is_aws() => {
            (ErrorKind::NotFound, "there is no such bucket", "check its name")
        }
        (_, "NoSuchBucket") => {
            (ErrorKind::NotFound, "there is no such bucket", "check its name, and the endpoint")
        }
        (_, "NoSuchKey") | (404, "") => {
            (ErrorKind::NotFound, "there is no such object", "check the bucket and the key")
        }
        (_, "SignatureDoesNotMatch") => (
            ErrorKind::PermissionDenied,
            "the signature is refused",
            "check AWS_SECRET_ACCESS_KEY: it is not the secret of this access key",
        ),
        (_, "InvalidAccessKeyId") => (
            ErrorKind::PermissionDenied,
            "the access key is not known there",
            "check AWS_ACCESS_KEY_ID, and which endpoint it is for",
        ),
        (_, "InvalidToken") => (
            ErrorKind::PermissionDenied,
            "the session token is refused",
            "check AWS_SESSION_TOKEN: it goes with one access key",
        ),
        (401 | 403, _) if store.0.credentials.is_none() => (
            ErrorKind::PermissionDenied,
            "anonymous access is refused",
            "give credentials, and unset RUNAI_STREAMER_S3_UNSIGNED and AWS_NO_SIGN_REQUEST",
        ),
        (_, "InvalidObjectState") => {
            (ErrorKind::Unsupported, "the object is archived", "restore it first")
        }
        (401 | 403, _) => (
            ErrorKind::PermissionDenied,
            "access is denied",
            "these credentials need s3:GetObject for objects and s3:ListBucket for directories",
        ),
        (_, "") => return refusal.default_action(),
        _ => match refusal.default_action() {
            ErrorAction::Fail(kind, sentence) => {
                return ErrorAction::Fail(kind, format!("{sentence} ({code})"));
            }
            other => return other,
        },
    };
    ErrorAction::Fail(kind, format!("{what}: {}; {remedy}", said(refusal)))
}

/// What the server said, shortly.
pub(super) fn said(refusal: &ErrorResponse) -> String {
    let (code, message) = (xml(refusal, "Code"), xml(refusal, "Message"));
    said::said(refusal, code.as_deref(), message.as_deref())
}
