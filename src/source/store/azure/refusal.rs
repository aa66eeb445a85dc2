//! What refusals of Azure Blob Storage mean.

use super::super::said::{said, xml};
use crate::error::ErrorKind;
use crate::source::http::{ErrorAction, ErrorResponse};

/// How requests are authorized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Use {
    Key,
    Sas,
    Token,
    /// Not at all; why.
    Nothing(String),
}

/// What `refusal`, of a blob in `container`, means. Details of a failed authorization are not
/// repeated: they may quote the signature.
pub(super) fn judge(refusal: &ErrorResponse, container: &str, using: &Use) -> ErrorAction {
    let code =
        refusal.header("x-ms-error-code").map(str::to_owned).or_else(|| xml(refusal, "Code"));
    let code = code.as_deref().unwrap_or_default();
    let detail = xml(refusal, "AuthenticationErrorDetail").unwrap_or_default();
    let message = xml(refusal, "Message");
    // Azurite gives this as AuthorizationFailure.
    let unsigned = code == "AuthenticationFailed"
        || message.as_ref().is_some_and(|message| message.contains("failed to authenticate"));
    let fail = |kind, remedy: &str| {
        let said = said(refusal, Some(code), message.as_deref());
        ErrorAction::Fail(kind, format!("{said}; {remedy}"))
    };
    let denied = |remedy: &str| fail(ErrorKind::PermissionDenied, remedy);
    let status = refusal.status.as_u16();
    match (status, code, using) {
        (_, "ServerBusy", _) => ErrorAction::Retry { throttled: true },
        (_, "InternalError" | "OperationTimedOut", _) => ErrorAction::Retry { throttled: false },
        // A private container is not there for those who come without credentials.
        (401 | 403 | 409, _, Use::Nothing(why)) => denied(&without(why)),
        (404, _, Use::Nothing(why)) => fail(
            ErrorKind::NotFound,
            &format!("check the location; or it is private: {}", without(why)),
        ),
        (403, _, Use::Key) if unsigned && detail.contains("date header") => {
            ErrorAction::CorrectClock
        }
        (403, _, Use::Key) if unsigned => {
            denied("the account key does not fit the account: check AZURE_STORAGE_ACCOUNT_KEY")
        }
        (403, _, Use::Sas) if unsigned => denied(
            "the shared access signature has run out, or is not for this: make another one that \
             may read and list",
        ),
        (401, _, Use::Token) => ErrorAction::RenewCredentials,
        (403, "AuthorizationFailure", _) => {
            denied("the account's firewall may not let this machine in: check its network rules")
        }
        (403, _, Use::Token) => {
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
        _ if code.is_empty() => refusal.default_action(),
        (400, _, _) => fail(ErrorKind::InvalidInput, "it does not understand the request"),
        _ => refusal.default_action(),
    }
}

fn without(why: &str) -> String {
    format!(
        "it was asked without credentials ({why}); set AZURE_STORAGE_ACCOUNT_KEY or \
         AZURE_STORAGE_SAS_TOKEN"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    fn judged(status: u16, code: &str, more: &str, using: &Use) -> ErrorAction {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code>{more}</Error>");
        let status = StatusCode::from_u16(status).unwrap();
        judge(&ErrorResponse { status, headers: HeaderMap::new(), body: body.into() }, "box", using)
    }

    #[test]
    fn a_wrong_key_is_told_from_a_wrong_clock() {
        let late = "<AuthenticationErrorDetail>Request date header too old: 'Thu, 17 Mar 2016 \
            19:05:58 GMT'</AuthenticationErrorDetail>";
        assert_eq!(judged(403, "AuthenticationFailed", late, &Use::Key), ErrorAction::CorrectClock);
        let wrong = "<Message>Server failed to authenticate the request.\nRequestId:1</Message>\
            <AuthenticationErrorDetail>The MAC signature found in the HTTP request 's3cret' is not \
            the same as any computed signature.</AuthenticationErrorDetail>";
        let (kind, sentence) = judged(403, "AuthenticationFailed", wrong, &Use::Key).failed();
        assert_eq!(kind, ErrorKind::PermissionDenied);
        assert!(sentence.contains("AZURE_STORAGE_ACCOUNT_KEY"), "{sentence}");
        assert!(sentence.contains("failed to authenticate") && !sentence.contains("RequestId"));
        assert!(!sentence.contains("s3cret"), "{sentence}");
        let (_, sentence) = judged(403, "AuthenticationFailed", wrong, &Use::Sas).failed();
        assert!(sentence.contains("shared access signature"), "{sentence}");
    }

    #[test]
    fn refusals_say_what_to_do() {
        let nothing = Use::Nothing("looked there".to_owned());
        for (status, code, using, kind, words) in [
            (404, "ContainerNotFound", &Use::Key, ErrorKind::NotFound, "no container box"),
            (404, "BlobNotFound", &Use::Key, ErrorKind::NotFound, "no such blob"),
            (404, "ResourceNotFound", &nothing, ErrorKind::NotFound, "(looked there)"),
            (409, "PublicAccessNotPermitted", &nothing, ErrorKind::PermissionDenied, "(looked"),
            (401, "NoAuthenticationInformation", &nothing, ErrorKind::PermissionDenied, "(looked"),
            (403, "AuthorizationFailure", &Use::Token, ErrorKind::PermissionDenied, "firewall"),
            (
                403,
                "AuthorizationPermissionMismatch",
                &Use::Token,
                ErrorKind::PermissionDenied,
                "Reader",
            ),
            (409, "BlobArchived", &Use::Key, ErrorKind::Unsupported, "rehydrate"),
            (400, "InvalidHeaderValue", &Use::Key, ErrorKind::InvalidInput, "InvalidHeaderValue"),
            (412, "ConditionNotMet", &Use::Key, ErrorKind::Changed, "replaced"),
        ] {
            let (got, sentence) = judged(status, code, "", using).failed();
            assert_eq!(got, kind, "{sentence}");
            assert!(sentence.contains(words), "{sentence}");
        }
        assert_eq!(
            judged(401, "InvalidAuthenticationInfo", "", &Use::Token),
            ErrorAction::RenewCredentials
        );
        assert_eq!(
            judged(503, "ServerBusy", "", &Use::Key),
            ErrorAction::Retry { throttled: true }
        );
        assert_eq!(
            judged(500, "InternalError", "", &Use::Key),
            ErrorAction::Retry { throttled: false }
        );
        assert_eq!(judged(429, "", "", &Use::Key), ErrorAction::Retry { throttled: true });
    }
}
