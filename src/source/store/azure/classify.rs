//! Classifies the error responses of Azure Blob Storage.

use crate::error::ErrorKind;
use crate::source::http::{ErrorAction, ErrorBody, ErrorResponse};

/// How requests are authorized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    Key,
    Sas,
    Token,
    /// Requests are not authorized, for this reason.
    Nothing(String),
}

/// Decides what to do after `response` to a request for a blob in `container`. The sentence does not
/// repeat the details of a failed authorization, which may quote the signature.
pub(super) fn classify(
    response: &ErrorResponse,
    container: &str,
    authorization: &Authorization,
) -> ErrorAction {
    let mut body = ErrorBody::from_xml(&response.body);
    if let Some(code) = response.header("x-ms-error-code") {
        body.code = code.to_owned();
    }
    let code = body.code.as_str();
    // Azurite sends the code AuthorizationFailure instead.
    let unauthenticated =
        code == "AuthenticationFailed" || body.message.contains("failed to authenticate");
    let fail = |kind, remedy: &str| {
        ErrorAction::Fail(kind, format!("{}; {remedy}", body.describe(response.status)))
    };
    let denied = |remedy: &str| fail(ErrorKind::PermissionDenied, remedy);
    let wrong_date = body.authentication_error_detail.contains("date header");
    let status = response.status.as_u16();
    match (status, code, authorization) {
        (_, "ServerBusy", _) => ErrorAction::Retry { throttled: true },
        (_, "InternalError" | "OperationTimedOut", _) => ErrorAction::Retry { throttled: false },
        // Without credentials, a private container is reported as missing.
        (401 | 403 | 409, _, Authorization::Nothing(why)) => denied(&without(why)),
        (404, _, Authorization::Nothing(why)) => fail(
            ErrorKind::NotFound,
            &format!("check the location; or it is private: {}", without(why)),
        ),
        (403, _, Authorization::Key) if unauthenticated && wrong_date => ErrorAction::CorrectClock,
        (403, _, Authorization::Key) if unauthenticated => {
            denied("the account key is not that of the account: check AZURE_STORAGE_ACCOUNT_KEY")
        }
        (403, _, Authorization::Sas) if unauthenticated => denied(
            "the shared access signature has expired, or is not for this object: create one that \
             may read and list",
        ),
        (401, _, Authorization::Token) => ErrorAction::RenewCredentials,
        (403, "AuthorizationFailure", _) => {
            denied("the account's firewall may exclude this machine: check its network rules")
        }
        (403, _, Authorization::Token) => {
            denied("grant the identity in use the role Storage Blob Data Reader")
        }
        (401 | 403, _, _) => denied("these credentials may not read it"),
        (404, "ContainerNotFound", _) => {
            fail(ErrorKind::NotFound, &format!("there is no container {container}; check its name"))
        }
        (404, _, _) => fail(ErrorKind::NotFound, "there is no such blob; check the location"),
        (409, "BlobArchived", _) => {
            fail(ErrorKind::Unsupported, "the blob is archived: rehydrate it first")
        }
        _ if code.is_empty() => response.default_action(),
        (400, _, _) => fail(ErrorKind::InvalidInput, "it does not understand the request"),
        _ => response.default_action(),
    }
}

fn without(why: &str) -> String {
    format!(
        "the request was sent without credentials ({why}); set AZURE_STORAGE_ACCOUNT_KEY or \
         AZURE_STORAGE_SAS_TOKEN"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    fn classified(
        status: u16,
        code: &str,
        more: &str,
        authorization: &Authorization,
    ) -> ErrorAction {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code>{more}</Error>");
        let status = StatusCode::from_u16(status).unwrap();
        classify(
            &ErrorResponse { status, headers: HeaderMap::new(), body: body.into() },
            "box",
            authorization,
        )
    }

    #[test]
    fn a_wrong_key_is_distinguished_from_a_wrong_clock() {
        let late = "<AuthenticationErrorDetail>Request date header too old: 'Thu, 17 Mar 2016 \
            19:05:58 GMT'</AuthenticationErrorDetail>";
        assert_eq!(
            classified(403, "AuthenticationFailed", late, &Authorization::Key),
            ErrorAction::CorrectClock
        );
        let wrong = "<Message>Server failed to authenticate the request.\nRequestId:1</Message>\
            <AuthenticationErrorDetail>The MAC signature found in the HTTP request 's3cret' is not \
            the same as any computed signature.</AuthenticationErrorDetail>";
        let (kind, sentence) =
            classified(403, "AuthenticationFailed", wrong, &Authorization::Key).failed();
        assert_eq!(kind, ErrorKind::PermissionDenied);
        assert!(sentence.contains("AZURE_STORAGE_ACCOUNT_KEY"), "{sentence}");
        assert!(sentence.contains("failed to authenticate") && !sentence.contains("RequestId"));
        assert!(!sentence.contains("s3cret"), "{sentence}");
        let (_, sentence) =
            classified(403, "AuthenticationFailed", wrong, &Authorization::Sas).failed();
        assert!(sentence.contains("shared access signature"), "{sentence}");
    }

    #[test]
    fn errors_say_what_to_do() {
        let nothing = Authorization::Nothing("looked there".to_owned());
        for (status, code, authorization, kind, words) in [
            (
                404,
                "ContainerNotFound",
                &Authorization::Key,
                ErrorKind::NotFound,
                "no container box",
            ),
            (404, "BlobNotFound", &Authorization::Key, ErrorKind::NotFound, "no such blob"),
            (404, "ResourceNotFound", &nothing, ErrorKind::NotFound, "(looked there)"),
            (409, "PublicAccessNotPermitted", &nothing, ErrorKind::PermissionDenied, "(looked"),
            (401, "NoAuthenticationInformation", &nothing, ErrorKind::PermissionDenied, "(looked"),
            (
                403,
                "AuthorizationFailure",
                &Authorization::Token,
                ErrorKind::PermissionDenied,
                "firewall",
            ),
            (
                403,
                "AuthorizationPermissionMismatch",
                &Authorization::Token,
                ErrorKind::PermissionDenied,
                "Reader",
            ),
            (409, "BlobArchived", &Authorization::Key, ErrorKind::Unsupported, "rehydrate"),
            (
                400,
                "InvalidHeaderValue",
                &Authorization::Key,
                ErrorKind::InvalidInput,
                "InvalidHeaderValue",
            ),
            (412, "ConditionNotMet", &Authorization::Key, ErrorKind::Changed, "replaced"),
        ] {
            let (got, sentence) = classified(status, code, "", authorization).failed();
            assert_eq!(got, kind, "{sentence}");
            assert!(sentence.contains(words), "{sentence}");
        }
        assert_eq!(
            classified(401, "InvalidAuthenticationInfo", "", &Authorization::Token),
            ErrorAction::RenewCredentials
        );
        assert_eq!(
            classified(503, "ServerBusy", "", &Authorization::Key),
            ErrorAction::Retry { throttled: true }
        );
        assert_eq!(
            classified(500, "InternalError", "", &Authorization::Key),
            ErrorAction::Retry { throttled: false }
        );
        assert_eq!(
            classified(429, "", "", &Authorization::Key),
            ErrorAction::Retry { throttled: true }
        );
    }
}
