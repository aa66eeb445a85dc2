//! Where a checkpoint is: a parsed path or URI.
//!
//! [`Location::parse`] takes what a user types. `scheme://rest` is a URI (the scheme as in RFC
//! 3986: a letter, then letters, digits, `+`, `-`, `.`); anything else is a path, so `C:\x`, `a:b`
//! and `dir/x://y` are paths, and `./s3://x` reaches a local file of that odd name. Patterns
//! (`*`, `?`, `[`) are not looked at here: they mean something only where no file of that name
//! exists, which is found out when the checkpoint is opened.
//!
//! [`IntoLocations`] is what lets one function take a string, a path, or a list of either. Strings
//! are parsed; paths ([`Path`], [`PathBuf`]) are taken as they are, whatever bytes they hold.

pub(crate) mod escape;
mod object;
mod uri;

pub use object::{ObjectUri, Scheme};

use crate::error::{Error, ErrorKind, Result};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A parsed path or URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Location {
    /// A path of the local file system: a file, a directory, an index, or a pattern.
    File(PathBuf),
    /// An object of a store or a web server, or what acts as a directory of them.
    Object(ObjectUri),
}

impl Location {
    /// Reads `text` as a URI of an object (see [`ObjectUri`]), as a `file://` URL or, without a
    /// `scheme://`, as a path.
    ///
    /// A `file://` URL has an absolute path and no host (or `localhost`). `%41` stands for the byte
    /// 0x41; `?` and `#` stand for themselves, since a local file has neither query nor fragment.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), naming the scheme, for any other `scheme://`.
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an empty text, a `file://` URL with a host,
    /// without a path, or with a malformed `%` escape, and the URI of an object that names no
    /// place of its scheme. What may be secret is not repeated.
    pub fn parse(text: &str) -> Result<Location> {
        if text.is_empty() {
            return Err(invalid("the location is empty; give a path or a file:// URL"));
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

    /// Like [`parse`](Self::parse), for text of the operating system: what is not UTF-8 is a path.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
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
            Location::File(path) => path.display().fmt(f),
            Location::Object(uri) => uri.fmt(f),
        }
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

/// Only the scheme is repeated: the rest of a URI may hold credentials.
fn unknown_scheme(scheme: &str) -> Error {
    let known = Scheme::ALL.map(|scheme| format!("{}://", scheme.as_str())).join(", ");
    let scheme = scheme.to_ascii_lowercase();
    let sentence = format!(
        "{scheme}:// locations are not supported; give a local path, a file:// URL, or one of {known}"
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

fn invalid(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, sentence)
}

/// `("s3", "bucket/key")` of `s3://bucket/key`; `None` for a path.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let starts_with_letter = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (starts_with_letter && scheme.bytes().all(of_scheme)).then_some((scheme, rest))
}

/// The location of the `file://` URL `url`, whose part behind `://` is `rest`.
fn file_url(url: &str, rest: &str) -> Result<Location> {
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    if path.is_empty() {
        return Err(invalid(format!("{url:?} has no path; write file:///absolute/path")));
    }
    if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
        return Err(invalid(format!(
            "{url:?} names the host {host:?}, but only local files can be read; \
             write file:///absolute/path"
        )));
    }
    let path = percent_decode(path).ok_or_else(|| {
        invalid(format!("{url:?} has a malformed % escape; write a literal % as %25"))
    })?;
    Ok(Location::File(PathBuf::from(OsString::from_vec(path))))
}

/// The bytes that `text` stands for; `None` where a `%` is not followed by two hex digits, or
/// they are `00`, which no path can hold.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match hex(bytes.next()?)? << 4 | hex(bytes.next()?)? {
                0 => return None,
                escaped => escaped,
            },
            plain => plain,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    // A hex digit's value is below 16, so nothing is cut off.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// What can be turned into locations: a string, a path, a [`Location`], or a list of them.
pub trait IntoLocations {
    /// The locations, in the order given.
    ///
    /// # Errors
    /// Those of [`Location::parse`].
    fn into_locations(self) -> Result<Vec<Location>>;
}

/// One impl for each kind of single location.
macro_rules! into_one_location {
    ($($type:ty: |$value:ident| $location:expr;)+) => {$(
        impl IntoLocations for $type {
            fn into_locations(self) -> Result<Vec<Location>> {
                let $value = self;
                Ok(vec![$location])
            }
        }
    )+};
}

into_one_location! {
    &str: |text| Location::parse(text)?;
    String: |text| Location::parse(&text)?;
    &String: |text| Location::parse(text)?;
    &OsStr: |text| Location::parse_os(text)?;
    OsString: |text| Location::parse_os(&text)?;
    &Path: |path| Location::from(path);
    PathBuf: |path| Location::from(path);
    &PathBuf: |path| Location::from(path.as_path());
    Location: |location| location;
    &Location: |location| location.clone();
}

fn into_all(items: impl IntoIterator<Item = impl IntoLocations>) -> Result<Vec<Location>> {
    let mut locations = Vec::new();
    for item in items {
        locations.extend(item.into_locations()?);
    }
    Ok(locations)
}

impl<T: IntoLocations> IntoLocations for Vec<T> {
    fn into_locations(self) -> Result<Vec<Location>> {
        into_all(self)
    }
}

impl<T: IntoLocations + Clone> IntoLocations for &Vec<T> {
    fn into_locations(self) -> Result<Vec<Location>> {
        into_all(self.iter().cloned())
    }
}

impl<T: IntoLocations + Clone> IntoLocations for &[T] {
    fn into_locations(self) -> Result<Vec<Location>> {
        into_all(self.iter().cloned())
    }
}

impl<T: IntoLocations, const N: usize> IntoLocations for [T; N] {
    fn into_locations(self) -> Result<Vec<Location>> {
        into_all(self)
    }
}

impl<T: IntoLocations + Clone, const N: usize> IntoLocations for &[T; N] {
    fn into_locations(self) -> Result<Vec<Location>> {
        into_all(self.iter().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

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
    fn refusals_say_what_to_write() {
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
        // A path is taken as it is; a string is parsed.
        assert_eq!(Path::new("s3://x").into_locations().unwrap(), vec![file("s3://x")]);
        assert!(["a", "ftp://x"].into_locations().is_err());
    }
}
