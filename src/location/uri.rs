//! Parses the URIs of objects. Error messages do not repeat the input, which may hold credentials.

use super::access_point;
use super::object::{ObjectUri, Scheme};
use crate::error::{Error, Result};
use http::uri::{Authority, PathAndQuery};
use percent_encoding::percent_decode_str;

/// Parses `rest`, the part after `scheme://`.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the container is missing or malformed.
pub(super) fn parse(scheme: Scheme, rest: &str) -> Result<ObjectUri> {
    match scheme {
        Scheme::Http | Scheme::Https => web(scheme, rest),
        Scheme::S3 | Scheme::Gs | Scheme::Az => bucket(scheme, rest),
        Scheme::Hf => hub(rest),
        Scheme::Anyscale => Ok(ObjectUri::new(scheme, "", rest.trim_start_matches('/'))),
    }
}

/// `[user[:password]@]host[:port][/path][?query][#fragment]`
fn web(scheme: Scheme, rest: &str) -> Result<ObjectUri> {
    let refuse = |what: &str| {
        let scheme = scheme.as_str();
        Error::invalid_input(format!("the {scheme}:// location {what}; write {scheme}://host/path"))
    };
    // A fragment is never sent to the server (RFC 3986, section 3.5).
    let rest = rest.split('#').next().unwrap_or_default();
    let (container, key) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = container.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err(refuse("names no host"));
    }
    let authority: Authority = host.parse().map_err(|_| refuse("has no valid host"))?;
    if authority.host() != host && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(refuse("has no valid port behind its host"));
    }
    let key = key.strip_prefix('/').unwrap_or(key);
    format!("/{key}").parse::<PathAndQuery>().map_err(|_| {
        refuse("holds characters that no URL may; percent-encode them (a space is %20)")
    })?;
    Ok(ObjectUri::new(scheme, container, key))
}

/// `bucket[/key]`, or the ARN of an access point of S3 in the place of the bucket.
fn bucket(scheme: Scheme, rest: &str) -> Result<ObjectUri> {
    let is_arn = scheme == Scheme::S3 && rest.starts_with("arn:");
    let (container, key) = match is_arn {
        true => access_point::split(rest)?,
        false => rest.split_once('/').unwrap_or((rest, "")),
    };
    if is_arn && container.contains(':') {
        return Ok(ObjectUri::new(scheme, container, key));
    }
    let word = if scheme == Scheme::Az { "container" } else { "bucket" };
    let refuse = |what: String| {
        let scheme = scheme.as_str();
        Error::invalid_input(format!(
            "the {scheme}:// location {what}; write {scheme}://{word}/path"
        ))
    };
    if container.is_empty() {
        return Err(refuse(format!("names no {word}")));
    }
    if container.contains(['@', ':']) {
        return Err(refuse(format!(
            "has more than a {word} before its first '/'; credentials, accounts and endpoints are \
             taken from the environment or from options"
        )));
    }
    // `$root`, `$web` and `$logs` are containers of Azure.
    let plain = container.strip_prefix('$').filter(|_| scheme == Scheme::Az).unwrap_or(container);
    if !is_plain(plain) {
        return Err(refuse(format!(
            "has a {word} with characters other than letters, digits, '.', '-' and '_'"
        )));
    }
    Ok(ObjectUri::new(scheme, container, key))
}

/// `[datasets/|spaces/]owner/repo[@revision][/path]`, or one of the oldest models, which have no owner,
/// as a whole (`gpt2`, `gpt2@revision/path`); as in `huggingface_hub`: the slashes of a
/// revision are escaped, except in `refs/pr/1` and `refs/convert/parquet`.
fn hub(rest: &str) -> Result<ObjectUri> {
    let refuse = |what: &str| {
        Error::invalid_input(format!(
            "the hf:// location {what}; write hf://owner/repo[@revision][/path]"
        ))
    };
    let kind = ["datasets/", "spaces/"].into_iter().find(|kind| rest.starts_with(kind));
    let kind = kind.unwrap_or_default();
    let named = &rest[kind.len()..];
    let repo_bytes = repo_bytes(named);
    let (repo, suffix) = named.split_at(repo_bytes);
    let are_names = repo.split('/').all(|name| is_plain(name) && !name.starts_with('.'));
    let has_owner = repo.contains('/');
    if repo.is_empty()
        || repo.starts_with('/')
        || repo.ends_with('/')
        || !(has_owner || kind.is_empty())
    {
        return Err(refuse("names no repository"));
    }
    if !are_names {
        return Err(refuse("has an owner or repository with characters that are not allowed"));
    }
    let (mut container, mut path) = (format!("{kind}{repo}"), suffix);
    if let Some(suffix) = suffix.strip_prefix('@') {
        let (revision, rest) = suffix.split_at(revision_bytes(suffix));
        let revision = escaped_revision(revision).ok_or_else(|| refuse("has no valid revision"))?;
        (container, path) = (format!("{container}@{revision}"), rest);
    }
    Ok(ObjectUri::new(Scheme::Hf, &container, path.strip_prefix('/').unwrap_or(path)))
}

/// The length of the repository's name at the start of `named`: `owner/repo`, or a name without owner
/// that a revision or nothing follows.
fn repo_bytes(named: &str) -> usize {
    let end_from = |start: usize| {
        let end = named[start..].find(['/', '@']);
        end.map_or(named.len(), |at| start + at)
    };
    let first = end_from(0);
    match named[first..].strip_prefix('/') {
        Some(rest) if !rest.is_empty() => end_from(first + 1),
        _ => first,
    }
}

/// The length of the revision at the start of `suffix`, the text after the `@`.
fn revision_bytes(suffix: &str) -> usize {
    let is_long = suffix.starts_with("refs/pr/") || suffix.starts_with("refs/convert/");
    let slash = suffix.match_indices('/').nth(if is_long { 2 } else { 0 });
    slash.map_or(suffix.len(), |(position, _)| position)
}

/// The revision with its slashes escaped; `None` for a name that git does not allow.
fn escaped_revision(revision: &str) -> Option<String> {
    let plain = percent_decode_str(revision).decode_utf8().ok()?;
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "\\^~:?*[%@".contains(c);
    let is_component = |part: &str| !part.is_empty() && !part.starts_with('.');
    let valid =
        !plain.contains(is_odd) && !plain.contains("..") && plain.split('/').all(is_component);
    valid.then(|| plain.replace('/', "%2F"))
}

/// Whether `name` is not empty and has only characters that names of buckets and repositories have.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}
