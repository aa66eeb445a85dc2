//! The user's token: `HF_TOKEN`, else the token file of `hf auth login`.

use super::cache;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RemoteOptions;
use crate::source::store::requests::bearer;
use crate::sys::{read_named, read_small};
use http::HeaderValue;

/// The value of the `Authorization` header, if there is a token.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a token with characters that no token has; those of
/// reading the file that `HF_TOKEN_PATH` names.
pub(super) fn find(options: &RemoteOptions) -> Result<Option<HeaderValue>> {
    if options.env_flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") == Some(true) {
        return Ok(None);
    }
    let variables = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter();
    let variables = variables.filter_map(|name| Some((name.to_owned(), options.env(name)?)));
    let mut variables = variables.filter(|(_, token)| !token.trim().is_empty());
    let found = match variables.next() {
        Some(found) => Some(found),
        None => from_file(options)?.filter(|(_, token)| !token.trim().is_empty()),
    };
    found.map(|(source, token)| authorization(&source, token.trim())).transpose()
}

/// The path and content of the token file. An unreadable file counts as missing, unless `HF_TOKEN_PATH`
/// names it. If a token is needed, the Hub's error says so.
///
/// # Errors
/// Those of reading the file that the variable names, except that it does not exist.
fn from_file(options: &RemoteOptions) -> Result<Option<(String, String)>> {
    const VARIABLE: &str = "HF_TOKEN_PATH";
    let (path, token) = match cache::env_path(options, VARIABLE) {
        Some(path) => match read_named(VARIABLE, &path, "token file") {
            Ok(token) => (path, token),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        },
        None => {
            let path = cache::home(options).map(|home| home.join("token"));
            match path.and_then(|path| Some((read_small(&path, "token file").ok()?, path))) {
                Some((token, path)) => (path, token),
                None => return Ok(None),
            }
        }
    };
    // A token is ASCII; anything else in the file is refused later.
    Ok(Some((path.display().to_string(), String::from_utf8_lossy(&token).into_owned())))
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
