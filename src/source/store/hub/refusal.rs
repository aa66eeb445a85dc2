//! What the Hub's refusals mean: it says why in the header `X-Error-Code`.

use super::place::Place;
use crate::error::ErrorKind;
use crate::source::http::{ErrorAction, ErrorResponse};
use crate::source::store::said::said;

/// What `refusal` of something in `place` means. `has_token` says whether a token was sent.
pub(super) fn judge(refusal: &ErrorResponse, place: &Place, has_token: bool) -> ErrorAction {
    let status = refusal.status.as_u16();
    let code = refusal.header("x-error-code").unwrap_or_default();
    let token = match has_token {
        true => "check that the account of the token may read it",
        false => "set HF_TOKEN to a token that may read it",
    };
    let (kind, sentence) = match (code, status) {
        ("GatedRepo", _) => {
            let page = place.page();
            let sentence = format!(
                "the repository is gated: accept its conditions at {page}, and set HF_TOKEN to a \
                 token of that account"
            );
            (ErrorKind::PermissionDenied, sentence)
        }
        // Of a private repository the Hub says to others that it does not exist; to those without a
        // token, neither of both.
        ("RepoNotFound", 401 | 403) => {
            let sentence =
                format!("the repository does not exist or is private: check its name, or {token}");
            (ErrorKind::PermissionDenied, sentence)
        }
        ("RepoNotFound", _) => {
            let sentence = format!(
                "the Hub knows no such repository: check its name; if it is private, {token}"
            );
            (ErrorKind::NotFound, sentence)
        }
        ("RevisionNotFound", _) => {
            let revision = place.revision();
            let sentence =
                format!("the repository has no revision {revision:?}: check what follows the '@'");
            (ErrorKind::NotFound, sentence)
        }
        ("EntryNotFound", _) => {
            (ErrorKind::NotFound, "the repository has no such file at this revision".to_owned())
        }
        (_, 401 | 403) => (ErrorKind::PermissionDenied, token.to_owned()),
        _ => return refusal.default_action(),
    };
    let said = said(refusal, Some(code), refusal.header("x-error-message"));
    ErrorAction::Fail(kind, format!("{said}; {sentence}"))
}
