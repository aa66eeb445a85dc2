//! Classifies the error responses of S3. Error documents have a code. Responses to HEAD have no
//! document, and some compatible stores never send one; these are classified by their status.

use super::bucket::S3Bucket;
use crate::error::ErrorKind;
use crate::source::http::{ErrorAction, ErrorBody, ErrorResponse};

/// Decides what to do after `response`.
pub(super) fn classify(bucket: &S3Bucket, response: &ErrorResponse) -> ErrorAction {
    let body = ErrorBody::from_xml(&response.body);
    if let Some(action) = in_other_region(bucket, response, &body) {
        return action;
    }
    match body.code.as_str() {
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
        _ => failure(bucket, response, &body),
    }
}

/// The action where the bucket is in another region than the request was signed for.
fn in_other_region(
    bucket: &S3Bucket,
    response: &ErrorResponse,
    body: &ErrorBody,
) -> Option<ErrorAction> {
    let status = response.status.as_u16();
    let region = response.header("x-amz-bucket-region").unwrap_or(&body.region);
    let moved = [301, 302, 307, 308].contains(&status)
        || body.code == "AuthorizationHeaderMalformed"
        || body.code == "IllegalLocationConstraintException"
        || (status == 400 && body.code.is_empty() && !region.is_empty());
    if !moved {
        return None;
    }
    // Retried even if the region is known by now, as this request may have been signed before.
    if bucket.set_region(region) {
        return Some(ErrorAction::RetryOnce("region"));
    }
    let sentence = format!(
        "the bucket is in another region, which the server does not name: {}; name the region with \
         AWS_REGION, and check the endpoint if one is set",
        body.describe(response.status)
    );
    Some(ErrorAction::Fail(ErrorKind::InvalidInput, sentence))
}

/// The action where a retry does not help.
fn failure(bucket: &S3Bucket, response: &ErrorResponse, body: &ErrorBody) -> ErrorAction {
    let code = body.code.as_str();
    let (kind, what, remedy) = match (response.status.as_u16(), code) {
        (_, "NoSuchBucket") if bucket.address.is_aws() => {
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
            "the signature is wrong",
            "check AWS_SECRET_ACCESS_KEY: it does not belong to this access key",
        ),
        (_, "InvalidAccessKeyId") => (
            ErrorKind::PermissionDenied,
            "the server does not know the access key",
            "check AWS_ACCESS_KEY_ID, and which endpoint it is for",
        ),
        (_, "InvalidToken") => (
            ErrorKind::PermissionDenied,
            "the session token is not valid",
            "check AWS_SESSION_TOKEN: it belongs to one access key",
        ),
        (_, "SecondLevelDomainForbidden" | "VirtualHostDomainRequired") => (
            ErrorKind::InvalidInput,
            "the store wants the bucket in the host name",
            "set addressing_style = virtual below s3 = in the AWS profile, or \
             RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING=1",
        ),
        (401 | 403, _) if bucket.credentials.is_none() => (
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
            "these credentials need s3:GetObject for objects and s3:ListBucket for directories; \
             AWS_NO_SIGN_REQUEST=true reads a public bucket without credentials",
        ),
        _ => match response.default_action() {
            ErrorAction::Fail(kind, sentence) if !code.is_empty() => {
                return ErrorAction::Fail(kind, format!("{sentence} ({code})"));
            }
            action => return action,
        },
    };
    ErrorAction::Fail(kind, format!("{what}: {}; {remedy}", body.describe(response.status)))
}
