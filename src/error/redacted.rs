//! Text for messages, without the parts of URLs that may be secret.
//!
//! A URL may hold a password (`https://user:password@host/`) and, in its query, a signature or a
//! token. The types of locations omit them, but a message may repeat a URL that is no location: a
//! path that looks like one (a `pathlib.Path` of a URL has one slash after the scheme), a proxy or an
//! endpoint in an error of another crate, or the words of a server. So every [`Error`](super::Error)
//! and every location omits them, and the command uses [`shown`] for all that it prints from outside.

use super::escaped::Escaped;
use std::borrow::Cow;
use std::fmt::Display;

/// The schemes whose URIs have no query: `?` is part of a key or of a pattern.
const WITHOUT_QUERY: [&str; 5] = ["s3", "gs", "az", "hf", "anyscale"];

/// Returns `value` as it may be shown: without secret parts of URLs, and with control characters
/// escaped.
pub fn shown(value: impl Display) -> String {
    Escaped(redacted(&value.to_string())).to_string()
}

/// Returns `text` with the user and password of each URL in it removed, and its query replaced by
/// `?...`.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((scheme_end, colon)) = next_url(&lower, text.len() - rest.len()) {
        let (before, after) = rest.split_at(scheme_end + colon);
        let scheme = scheme_at_end(&before[..scheme_end]);
        let slashes = after.len() - after.trim_start_matches('/').len();
        out.push_str(before);
        out.push_str(&after[..slashes]);
        rest = &after[slashes..];
        if scheme.is_empty() {
            continue;
        }
        let authority = end_of(rest, |c| "/?#".contains(c) || c.is_whitespace());
        let user = rest[..authority].rfind('@').map_or(0, |at| at + 1);
        rest = &rest[user..];
        if WITHOUT_QUERY.contains(&scheme.to_ascii_lowercase().as_str()) {
            continue;
        }
        let word = &rest[..end_of(rest, |c| c.is_whitespace() || "\"'`<>".contains(c))];
        // A URL in the path of this one comes next.
        let query = word.find('?').filter(|&query| !word[..query].contains(":/"));
        // Punctuation at the end belongs to the sentence; alone it is what this function wrote.
        let end = word.trim_end_matches([':', ';', ',', '.', ')']).len();
        if let Some(query) = query.filter(|query| query + 1 < end) {
            out.push_str(&word[..query]);
            out.push_str("?...");
            rest = &rest[end..];
        }
    }
    if out.is_empty() {
        return Cow::from(text);
    }
    out.push_str(rest);
    Cow::from(out)
}

/// The next URL in `lower`, a text in lower case, from `from` on: where its scheme ends, counted from
/// there, and the bytes of the colon. `http` and `https` also count at the start of a word if the colon
/// or both slashes were forgotten.
fn next_url(lower: &str, from: usize) -> Option<(usize, usize)> {
    let rest = &lower[from..];
    let mistyped = rest.match_indices("http").find_map(|(at, http)| {
        let before = lower[..from + at].chars().next_back();
        let starts_word = before.is_none_or(|c| c.is_whitespace() || "\"'`(<=".contains(c));
        let end = at + http.len();
        let end = end + usize::from(rest[end..].starts_with('s'));
        let colon = match rest[end..].strip_prefix(':') {
            Some(after) if after.starts_with(|c: char| c.is_alphanumeric() || c == '[') => 1,
            None if rest[end..].starts_with("//") => 0,
            _ => return None,
        };
        starts_word.then_some((end, colon))
    });
    let written = rest.find(":/").map(|colon| (colon, 1));
    [written, mistyped].into_iter().flatten().min()
}

/// The scheme of a URL at the end of `text`; empty if there is none.
fn scheme_at_end(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let start = text
        .rfind(|c| !is_part(c))
        .map_or(0, |at| at + text[at..].chars().next().map_or(0, char::len_utf8));
    let scheme = &text[start..];
    if scheme.len() > 1 && scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
        scheme
    } else {
        ""
    }
}

fn end_of(text: &str, ends: impl Fn(char) -> bool) -> usize {
    text.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_secret_parts_wherever_they_are() {
        for (text, expected) in [
            ("no URL, a:b, C:/x, ://y?z", "no URL, a:b, C:/x, ://y?z"),
            ("open https://h/x: not there", "open https://h/x: not there"),
            ("open https://u:p@h/x?sig=s: not there", "open https://h/x?...: not there"),
            ("open https:/u:p@h/x?sig=s; check", "open https:/h/x?...; check"),
            ("\"http://u:p@ss@h\" and (ftp://u@h/?t=1)", "\"http://h\" and (ftp://h/?...)"),
            ("s3://b/model-?.safetensors", "s3://b/model-?.safetensors"),
            (
                "the proxy http://u:p@h:1 refuses https://h?t",
                "the proxy http://h:1 refuses https://h?...",
            ),
            ("http://h/?next=https://u:p@g/?t, x", "http://h/?..., x"),
            ("http://h/https://u:p@g/?t", "http://h/https://g/?..."),
            ("list http://h/x?... now, http://h?: no", "list http://h/x?... now, http://h?: no"),
            ("hf://o/r@main/x mail a@b", "hf://o/r@main/x mail a@b"),
            ("\u{e9}http://u:\u{e9}@h", "\u{e9}http://h"),
            // URLs with a forgotten colon or slash were repeated with password and signature.
            ("\"https//u:p@h/x?sig=s\"; check", "\"https//h/x?...\"; check"),
            ("HTTP:u:p@h/x?sig=s and https:h?t=1", "HTTP:h/x?... and https:h?..."),
            ("http: no? HTTP/1.1? /a/http//b?c", "http: no? HTTP/1.1? /a/http//b?c"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
        assert_eq!(shown("https://u:p@h/\u{1b}"), r"https://h/\u{1b}");
    }
}
