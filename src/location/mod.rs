//! The location of a checkpoint: a parsed path or URI.
//!
//! [`Location::parse`] reads what a user types. `scheme://rest` is a URI, whose scheme is a letter
//! followed by letters, digits, `+`, `-` and `.` (RFC 3986); anything else is a path. So `C:\x`,
//! `a:b` and `dir/x://y` are paths, and `./s3://x` names a local file called `s3:`. Patterns (`*`,
//! `?`, `[`) are expanded when the checkpoint is opened, where no file of that name exists.
//!
//! [`IntoLocations`] lets one function accept a string, a path, or a list of either. Strings are
//! parsed; paths ([`Path`], [`PathBuf`]) are used as they are, whatever bytes they hold.

mod access_point;
pub(crate) mod escape;
mod object;
mod text;
mod uri;

#[cfg(feature = "s3")]
pub(crate) use access_point::AccessPoint;
pub use object::{ObjectUri, Scheme};
pub use text::LocationText;

use crate::error::{Error, ErrorKind, Result, redacted, shown};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{self, Path, PathBuf};

/// The bytes that a `file://` URL does not escape.
const URL_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A parsed path or URI.
///
/// ```
/// use ringload::Location;
///
/// assert!(matches!(Location::parse("/models/llama-8b").unwrap(), Location::File(_)));
/// assert!(matches!(Location::parse("s3://bucket/llama-8b/").unwrap(), Location::Object(_)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Location {
    /// A path of the local file system: a file, a directory, an index, or a pattern.
    File(PathBuf),
    /// An object, or a directory of objects, of a store or a web server.
    Object(ObjectUri),
}

impl Location {
    /// Parses `text` as the URI of an object (see [`ObjectUri`]), as a `file://` URL or, without a
    /// `scheme://`, as a path.
    ///
    /// A `file://` URL has an absolute path and no host other than `localhost`. `%41` stands for the
    /// byte 0x41. `?` and `#` stand for themselves, since a local file has no query or fragment.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), naming the scheme, for an unknown `scheme://`.
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an empty text; for a `file://` URL with a host,
    /// without a path, or with a malformed `%` escape; and for a malformed URI of an object. The
    /// message does not repeat the parts that may be secret.
    pub fn parse(text: &str) -> Result<Location> {
        if text.is_empty() {
            return Err(Error::invalid_input(
                "the location is empty; give a path or a file:// URL",
            ));
        }
        match split_scheme(text) {
            None => Ok(Location::File(PathBuf::from(text))),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => file_url(text, rest),
            Some((scheme, rest)) => {
                let mut known = Scheme::ALL.into_iter();
                match known.find(|known| scheme.eq_ignore_ascii_case(known.as_str())) {
                    Some(scheme) => Ok(Location::Object(uri::parse(scheme, rest)?)),
                    None => Err(unknown_scheme(scheme)),
                }
            }
        }
    }

    /// Like [`parse`](Self::parse), for a string of the operating system. A string that is not
    /// UTF-8 is a path.
    ///
    /// # Errors
    /// The errors of [`parse`](Self::parse).
    pub fn parse_os(text: &OsStr) -> Result<Location> {
        match text.to_str() {
            Some(text) => Self::parse(text),
            None => Ok(Location::File(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => f.write_str(&shown(path.display())),
            Location::Object(uri) => uri.fmt(f),
        }
    }
}

impl From<&Location> for LocationText {
    fn from(location: &Location) -> Self {
        match location {
            Location::File(path) => Self::from(path.as_path()),
            Location::Object(uri) => Self(uri.without_secrets()),
        }
    }
}

impl From<&Path> for LocationText {
    fn from(path: &Path) -> Self {
        let is_path = |text: &&str| matches!(Location::parse(text), Ok(Location::File(parsed)) if parsed == *path);
        if let Some(text) = path.to_str().filter(is_path) {
            return Self(redacted(text).into_owned());
        }
        // The directory of the process may be gone.
        let absolute = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self(format!("file://{}", percent_encode(absolute.as_os_str().as_bytes(), URL_PATH)))
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::File(path)
    }
}

impl From<ObjectUri> for Location {
    fn from(uri: ObjectUri) -> Self {
        Location::Object(uri)
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Location::File(path.to_path_buf())
    }
}

/// The message names the scheme only: the rest of a URI may hold credentials.
fn unknown_scheme(scheme: &str) -> Error {
    let known = Scheme::ALL.map(|scheme| format!("{}://", scheme.as_str())).join(", ");
    let scheme = scheme.to_ascii_lowercase();
    let sentence = format!(
        "{scheme}:// locations are not supported; give a local path, a file:// URL, or one of {known}"
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

/// The URL that `path` may be meant as, if it lacks the colon or a slash after the scheme.
pub(crate) fn intended_url(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let schemes = Scheme::ALL.into_iter().map(Scheme::as_str).chain(["file"]);
    schemes.into_iter().find_map(|scheme| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        let is_mistyped = start.eq_ignore_ascii_case(scheme)
            && (rest.starts_with("//") || rest.starts_with(':') && !rest.starts_with("://"));
        let rest = rest.trim_start_matches([':', '/']);
        let root = if scheme == "file" { "/" } else { "" };
        (is_mistyped && !rest.is_empty()).then(|| format!("{scheme}://{root}{rest}"))
    })
}

/// Splits `s3://bucket/key` into `("s3", "bucket/key")`; `None` for a path.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let starts_with_letter = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (starts_with_letter && scheme.bytes().all(is_allowed)).then_some((scheme, rest))
}

/// The location of the `file://` URL `url`; `rest` is its part after `://`.
fn file_url(url: &str, rest: &str) -> Result<Location> {
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let why = if path.is_empty() {
        "has no path; write file:///absolute/path".to_owned()
    } else if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
        let host = host.rsplit('@').next().unwrap_or_default();
        format!(
            "names the host {host:?}, but only local files can be read; write \
             file:///absolute/path"
        )
    } else if let Some(path) = percent_decode(path) {
        return Ok(Location::File(PathBuf::from(OsString::from_vec(path))));
    } else {
        "has a malformed % escape; write a literal % as %25".to_owned()
    };
    Err(Error::invalid_input(format!("{url:?} {why}")))
}

/// Decodes the `%` escapes of `text`. `None` where a `%` is not followed by two hex digits, or is
/// followed by `00`, which no path can hold.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let is_escape = |after: &str| match after.as_bytes() {
        [b'0', b'0', ..] => false,
        [high, low, ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        _ => false,
    };
    text.split('%').skip(1).all(is_escape).then(|| percent_decode_str(text).collect())
}

/// Values that can be converted to locations: a string, a path, a [`Location`], or a list of them.
pub trait IntoLocations {
    /// The locations, in the order given.
    ///
    /// # Errors
    /// The errors of [`Location::parse`].
    fn into_locations(self) -> Result<Vec<Location>>;
}

/// Implements [`IntoLocations`] for `$type` by the expression `$locations` of `$value`.
macro_rules! into_locations {
    ($([$($generics:tt)*] $type:ty: |$value:ident| $locations:expr;)+) => {$(
        impl<$($generics)*> IntoLocations for $type {
            fn into_locations(self) -> Result<Vec<Location>> {
                let $value = self;
                $locations
            }
        }
    )+};
}

into_locations! {
    [] &str: |text| Ok(vec![Location::parse(text)?]);
    [] String: |text| text.as_str().into_locations();
    [] &String: |text| text.as_str().into_locations();
    [] &OsStr: |text| Ok(vec![Location::parse_os(text)?]);
    [] OsString: |text| text.as_os_str().into_locations();
    [] &Path: |path| Ok(vec![path.into()]);
    [] PathBuf: |path| Ok(vec![path.into()]);
    [] &PathBuf: |path| path.as_path().into_locations();
    [] Location: |location| Ok(vec![location]);
    [] &Location: |location| Ok(vec![location.clone()]);
    [T: IntoLocations] Vec<T>: |items| into_all(items);
    [T: IntoLocations + Clone] &Vec<T>: |items| into_all(items.iter().cloned());
    [T: IntoLocations + Clone] &[T]: |items| into_all(items.iter().cloned());
    [T: IntoLocations, const N: usize] [T; N]: |items| into_all(items);
    [T: IntoLocations + Clone, const N: usize] &[T; N]: |items| into_all(items.iter().cloned());
}

fn into_all(items: impl IntoIterator<Item = impl IntoLocations>) -> Result<Vec<Location>> {
    let mut locations = Vec::new();
    for item in items {
        locations.extend(item.into_locations()?);
    }
    Ok(locations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Location {
        Location::File(PathBuf::from(path))
    }

    #[test]
    fn paths_and_file_urls_are_files() {
        for (text, path) in [
            ("model.safetensors", "model.safetensors"),
            ("/a b/*.safetensors", "/a b/*.safetensors"),
            (r"C:\models\x", r"C:\models\x"),
            ("a:b", "a:b"),
            ("dir/s3://x", "dir/s3://x"),
            ("./s3://x", "./s3://x"),
            ("3s://x", "3s://x"),
            ("://x", "://x"),
            ("file:/x", "file:/x"),
            ("file:///a/b", "/a/b"),
            ("FILE://localhost/a%20b%2F%C3%A9?#", "/a b/\u{e9}?#"),
            ("file:///a%25b", "/a%b"),
        ] {
            assert_eq!(Location::parse(text).unwrap(), file(path), "{text}");
        }
    }

    #[test]
    fn a_url_with_a_forgotten_colon_or_slash_is_recognised() {
        for (path, url) in [
            ("http:/h/x", Some("http://h/x")),
            ("HTTPS//h/x?s", Some("https://h/x?s")),
            ("s3:bucket/x", Some("s3://bucket/x")),
            ("file:/x", Some("file:///x")),
            ("https/x", None),
            ("https:", None),
            ("./http:/x", None),
            ("/m", None),
        ] {
            assert_eq!(intended_url(Path::new(path)).as_deref(), url, "{path}");
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, kind, sentence) in [
            ("", ErrorKind::InvalidInput, "the location is empty; give a path or a file:// URL"),
            (
                "FTP://user:secret@host",
                ErrorKind::Unsupported,
                "ftp:// locations are not supported; give a local path, a file:// URL, or one of \
                 http://, https://, s3://, gs://, az://, hf://, anyscale://",
            ),
            (
                "file://x",
                ErrorKind::InvalidInput,
                "\"file://x\" has no path; write file:///absolute/path",
            ),
            (
                "file://host/x",
                ErrorKind::InvalidInput,
                "\"file://host/x\" names the host \"host\", but only local files can be read; \
                 write file:///absolute/path",
            ),
            (
                "file:///x%4",
                ErrorKind::InvalidInput,
                "\"file:///x%4\" has a malformed % escape; write a literal % as %25",
            ),
        ] {
            let error = Location::parse(text).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, sentence));
        }
        for text in ["file:///%zz", "file:///%00", "file:///%+1", "file:///%"] {
            assert_eq!(
                Location::parse(text).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{text}"
            );
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_survive() {
        let raw = OsStr::from_bytes(b"/m\xff.safetensors");
        let expected = vec![Location::from(Path::new(raw))];
        assert_eq!(raw.into_locations().unwrap(), expected);
        assert_eq!(Path::new(raw).into_locations().unwrap(), expected);
        assert_eq!("file:///m%ff.safetensors".into_locations().unwrap(), expected);
    }

    #[test]
    fn lists_keep_their_order() {
        let expected = vec![file("b"), file("a")];
        assert_eq!(["b", "a"].into_locations().unwrap(), expected);
        assert_eq!((&["b", "a"]).into_locations().unwrap(), expected);
        assert_eq!(["b", "a"].as_slice().into_locations().unwrap(), expected);
        assert_eq!(vec![PathBuf::from("b"), "a".into()].into_locations().unwrap(), expected);
        assert_eq!((&vec!["b".to_string(), "a".into()]).into_locations().unwrap(), expected);
        assert_eq!(expected.clone().into_locations().unwrap(), expected);
        // A path is used as it is; a string is parsed.
        assert_eq!(Path::new("s3://x").into_locations().unwrap(), vec![file("s3://x")]);
        assert!(["a", "ftp://x"].into_locations().is_err());
    }

    #[test]
    fn json_has_the_true_text_and_people_see_it_escaped() {
        let json = |text: &LocationText| serde_json::to_string(text).unwrap();
        let text = LocationText::from(Path::new("/m/a\n\u{1b}[31m\"\u{e9}"));
        assert_eq!(json(&text), "\"/m/a\\n\\u001b[31m\\\"\u{e9}\"");
        assert_eq!(text.to_string(), "/m/a\\n\\u{1b}[31m\"\u{e9}");
        let text = LocationText::from(&Location::parse("s3://bucket/a\u{7}b").unwrap());
        assert_eq!(json(&text), r#""s3://bucket/a\u0007b""#);
        assert_eq!(text.to_string(), r"s3://bucket/a\u{7}b");
    }

    #[test]
    fn every_path_is_found_again_by_its_json() {
        for bytes in [&b"/m/\xff%2F \n\xc3\xa9"[..], b"/m/a%41", b"/m/s3://x", b"/\xf0\x9f"] {
            let path = PathBuf::from(OsStr::from_bytes(bytes));
            let text = LocationText::from(path.as_path()).0;
            assert_eq!(Location::parse(&text).unwrap(), Location::File(path), "{text}");
        }
        let relative = LocationText::from(Path::new("s3://bucket/x")).0;
        assert!(relative.starts_with("file:///") && relative.ends_with("/s3%3A/bucket/x"));
        let secret = LocationText::from(Path::new("https:/user:s3cret@host/x?sig=s3cret"));
        assert_eq!(secret.to_string(), "https:/host/x?...");
    }
}
