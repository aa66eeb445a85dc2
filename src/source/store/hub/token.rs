//! The user's token: `HF_TOKEN`, else what `hf auth login` left in the token file.

use super::cache;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RemoteOptions;
use crate::source::store::parts::bearer;
use http::HeaderValue;
use std::fs;

/// The authorization to send, if there is a token.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) where it holds characters that no token has.
pub(super) fn find(options: &RemoteOptions) -> Result<Option<HeaderValue>> {
    if options.env_flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") == Some(true) {
        return Ok(None);
    }
    let variables = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter();
    let found = variables.filter_map(|name| Some((name.to_owned(), options.env(name)?)));
    let found = found.map(|(name, token)| (name, token.trim().to_owned()));
    match found.chain(from_file(options)).find(|(_, token)| !token.is_empty()) {
        Some((place, token)) => authorization(&place, &token).map(Some),
        None => Ok(None),
    }
}

/// The token of the token file, and the file's name. One that cannot be read is as good as none:
/// the Hub says so if it is needed.
fn from_file(options: &RemoteOptions) -> Option<(String, String)> {
    let named = options.env("HF_TOKEN_PATH").map(|path| cache::expanded(options, &path));
    let path = match named {
        Some(path) => path,
        None => cache::home(options)?.join("token"),
    };
    let token = fs::read_to_string(&path).ok()?;
    Some((path.display().to_string(), token.trim().to_owned()))
}

fn authorization(place: &str, token: &str) -> Result<HeaderValue> {
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    bearer(token).filter(|_| is_plain).ok_or_else(|| {
        let sentence =
            format!("{place} holds no token of the Hub; copy it again from its settings");
        Error::new(ErrorKind::InvalidInput, sentence)
    })
}
