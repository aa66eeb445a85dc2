//! Classifies the error responses of the Hub, whose code is in the header `X-Error-Code`.

use super::repo_path::RepoPath;
use crate::error::ErrorKind;
use crate::source::http::{ErrorAction, ErrorBody, ErrorResponse};

/// Decides what to do after `response` to a request for a file of `repo`. `has_token` says whether
/// the request had a token.
pub(super) fn classify(response: &ErrorResponse, repo: &RepoPath, has_token: bool) -> ErrorAction {
    let code = response.header("x-error-code").unwrap_or_default();
    let message = response.header("x-error-message").unwrap_or_default();
    let token = match has_token {
        true => "check that the account of the token may read it",
        false => "set HF_TOKEN to a token that may read it",
    };
    let (kind, remedy) = match (code, response.status.as_u16()) {
        ("GatedRepo", _) => (
            ErrorKind::PermissionDenied,
            format!(
                "the repository is gated: accept its conditions at {}, and set HF_TOKEN to a token \
                 of that account",
                repo.page()
            ),
        ),
        // The Hub reports a private repository as missing to accounts without access, and every
        // missing repository as denied to requests without a token.
        ("RepoNotFound", 401 | 403) => (
            ErrorKind::PermissionDenied,
            format!("the repository does not exist or is private: check its name, or {token}"),
        ),
        ("RepoNotFound", _) => (
            ErrorKind::NotFound,
            format!("the Hub has no such repository: check its name; if it is private, {token}"),
        ),
        ("RevisionNotFound", _) => {
            let revision = &repo.revision;
            let remedy =
                format!("the repository has no revision {revision:?}: check what follows the '@'");
            (ErrorKind::NotFound, remedy)
        }
        ("EntryNotFound", _) => {
            (ErrorKind::NotFound, "the repository has no such file at this revision".to_owned())
        }
        (_, 401 | 403) => (ErrorKind::PermissionDenied, token.to_owned()),
        _ => return response.default_action(),
    };
    let description = ErrorBody::new(code, message).describe(response.status);
    ErrorAction::Fail(kind, format!("{description}; {remedy}"))
}
