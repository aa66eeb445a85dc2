//! The user's token: `HF_TOKEN`, else the token file of `hf auth login`.

use super::cache;
use crate::error::{Error, Result};
use crate::options::RemoteOptions;
use crate::source::store::requests::bearer;
use crate::sys::read_small_text;
use http::HeaderValue;

/// The value of the `Authorization` header, if there is a token.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a token with characters that no token has.
pub(super) fn find(options: &RemoteOptions) -> Result<Option<HeaderValue>> {
    if options.env_flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") == Some(true) {
        return Ok(None);
    }
    let variables = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter();
    let variables = variables.filter_map(|name| Some((name.to_owned(), options.env(name)?)));
    let found = variables.chain(from_file(options)).find(|(_, token)| !token.trim().is_empty());
    found.map(|(source, token)| authorization(&source, token.trim())).transpose()
}

/// The path and content of the token file. An unreadable file counts as missing. If a token is
/// needed, the Hub's error says so.
fn from_file(options: &RemoteOptions) -> Option<(String, String)> {
    let path = cache::env_path(options, "HF_TOKEN_PATH")
        .or_else(|| Some(cache::home(options)?.join("token")))?;
    let token = read_small_text(&path, "token file").ok()?;
    Some((path.display().to_string(), token))
}

fn authorization(source: &str, token: &str) -> Result<HeaderValue> {
    let is_valid = token.bytes().all(|byte| byte.is_ascii_graphic());
    bearer(token).filter(|_| is_valid).ok_or_else(|| {
        Error::invalid_input(format!(
            "{source} does not hold a token of the Hub; copy the token again from the settings of \
             the Hub"
        ))
    })
}
