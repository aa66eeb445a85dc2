//! The names of files in a manifest: their paths relative to the directory that they have in common.
//!
//! A checkpoint is copied from one place to another, so files are found by the last components of their
//! paths. The longest name that a path ends with counts.

use crate::error::{Error, Result};
use crate::location::Location;
use percent_encoding::percent_decode;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// The components of the path of `location`, as a manifest has them. Those of a URL are decoded, so
/// that a copy of the file has the same name; its user, host and query are left out.
pub(super) fn components(location: &Location) -> Vec<String> {
    let (path, is_url) = match location {
        Location::File(path) => (path.as_os_str().as_bytes(), false),
        Location::Object(uri) => (uri.path().as_bytes(), uri.is_url()),
    };
    let names = path.split(|&byte| byte == b'/').map(|name| match is_url {
        true => Cow::from(percent_decode(name)),
        false => Cow::from(name),
    });
    names.filter(|name| !name.is_empty() && **name != *b".").map(|name| escaped(&name)).collect()
}

/// A component as text. Other bytes have another text: `%FF` stands for a byte that is not UTF-8, `%2F`
/// for a slash, and `%25` for a `%` before two hexadecimal digits.
fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    let escape = |text: &mut String, byte: u8| {
        let _ = write!(text, "%{byte:02X}"); // writing to a string cannot fail
    };
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid();
        for (at, character) in valid.char_indices() {
            let next = valid.as_bytes().get(at + 1..at + 3);
            let is_like_escape = next.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
            match character {
                '/' => escape(&mut text, b'/'),
                '%' if is_like_escape => escape(&mut text, b'%'),
                character => text.push(character),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape(&mut text, byte));
    }
    text
}

/// The names of the files at `locations` in a manifest: their paths without the directories that all of
/// them have in common.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a location without a name, and for two with the
/// same name, such as URLs that differ only in their queries.
pub(crate) fn common_names(locations: &[&Location]) -> Result<Vec<String>> {
    let paths: Vec<_> = locations.iter().map(|location| components(location)).collect();
    let shortest = paths.iter().map(|path| path.len().saturating_sub(1)).min().unwrap_or(0);
    let is_common = |&at: &usize| paths.iter().all(|path| path[at] == paths[0][at]);
    let common = (0..shortest).take_while(is_common).count();
    let names: Vec<_> = paths.iter().map(|path| path[common..].join("/")).collect();
    let mut named = HashMap::new();
    for (name, location) in names.iter().zip(locations) {
        if name.is_empty() {
            return Err(Error::invalid_input(format!(
                "a manifest cannot name {location}, whose path has no name; download it, and sum the \
                 copy"
            )));
        }
        if let Some(other) = named.insert(name, location) {
            return Err(Error::invalid_input(format!(
                "one manifest cannot tell {other} from {location}: both have the name {name:?} in \
                 it, because names have no host, bucket or query; sum them one by one, or download \
                 them under different names, and sum the copies"
            )));
        }
    }
    Ok(names)
}

/// How many components of `name` the path ends with; `None` unless it ends with all of them.
pub(super) fn matching(path: &[String], name: &str) -> Option<usize> {
    let name: Vec<&str> = name.split('/').collect();
    let start = path.len().checked_sub(name.len())?;
    path[start..].iter().eq(&name).then_some(name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str]) -> Vec<String> {
        let locations: Vec<_> = paths.iter().map(|path| Location::parse(path).unwrap()).collect();
        names_of(&locations)
    }

    fn names_of(locations: &[Location]) -> Vec<String> {
        common_names(&locations.iter().collect::<Vec<_>>()).unwrap()
    }

    /// A past fault: the name of a file behind a signed URL had the URL's query, so a manifest held the
    /// signature, and neither a newly signed URL nor a copy of the file matched it. Names have no query,
    /// and are those that a copy has.
    #[test]
    fn names_hold_no_secrets_of_a_url() {
        let url = "http://usr:pw@host/a/my%20model%2Fx.safetensors?X-Amz-Signature=SECRET";
        assert_eq!(names(&[url]), ["my model%2Fx.safetensors"]);
        assert_eq!(names(&["http://host/a/m.st?v=1", "/a/b/n.st"]), ["m.st", "b/n.st"]);
        let resigned = components(&Location::parse("https://h/b/my%20m.st?sig=2").unwrap());
        assert_eq!(matching(&resigned, "my m.st"), Some(1));
        let refused = |locations: &[&str]| {
            let parsed: Vec<_> =
                locations.iter().map(|url| Location::parse(url).unwrap()).collect();
            common_names(&parsed.iter().collect::<Vec<_>>()).unwrap_err().to_string()
        };
        let told = refused(&["http://h/m?part=1SECRET", "http://h/m?part=2SECRET"]);
        assert!(told.contains("both have the name \"m\"") && !told.contains("SECRET"), "{told}");
        assert!(refused(&["s3://one/m", "s3://two/m"]).contains("s3://two/m"));
        assert!(refused(&["http://h/?file=m"]).contains("has no name"));
    }

    /// A past fault: two files whose names are not UTF-8 had one name in the manifest, which then was
    /// refused. Different bytes have different names.
    #[test]
    fn names_that_are_not_utf8_are_escaped_reversibly() {
        let name = |bytes: &[u8]| {
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(bytes));
            names_of(&[Location::from(path)]).remove(0)
        };
        assert_eq!((name(b"e\xff.st"), name(b"e\xfe.st")), ("e%FF.st".into(), "e%FE.st".into()));
        assert_eq!((name(b"e%FF.st"), name(b"100%.st")), ("e%25FF.st".into(), "100%.st".into()));
        for bytes in [&b"%\xff"[..], b"%2\xff", b"%%25", b"%4%41", b"\xc3\xa9%\xc3%c3", b"%25%2"] {
            let text = name(bytes);
            assert_eq!(percent_decode(text.as_bytes()).collect::<Vec<_>>(), bytes, "{text}");
        }
    }

    #[test]
    fn names_are_relative_to_the_common_directory() {
        assert_eq!(names(&["/m/a.st"]), ["a.st"]);
        assert_eq!(names(&["/m/a.st", "/m/b.st"]), ["a.st", "b.st"]);
        assert_eq!(names(&["/m/unet/a.st", "/m/vae/a.st"]), ["unet/a.st", "vae/a.st"]);
        assert_eq!(names(&["/m/a.st", "/m/vae/a.st"]), ["a.st", "vae/a.st"]);
        assert_eq!(names(&["a.st", "./b//c.st"]), ["a.st", "b/c.st"]);
        assert_eq!(names(&["s3://bucket/x/m/a.st?y"]), names(&["/a.st?y"]));
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn a_path_is_found_by_its_last_components() {
        let path = components(&Location::parse("/m/vae/a.st").unwrap());
        assert_eq!(matching(&path, "a.st"), Some(1));
        assert_eq!(matching(&path, "vae/a.st"), Some(2));
        for other in ["b.st", "unet/a.st", "x/m/vae/a.st", "st", ""] {
            assert_eq!(matching(&path, other), None, "{other}");
        }
    }
}
