//! Lists the files of a directory, filtered by patterns.
//!
//! Patterns are those of fnmatch(3) without flags: `*` and `?` also match slashes. They are matched
//! against the whole path that is passed to the callback.

use super::code::Failure;
use crate::load::Loader;
use crate::location::Location;
use crate::options::Glob;
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStringExt;

/// Called with each file: its path, its size in bytes, and the caller's `user_data`.
pub type RunaiFileStreamerFileListCallback =
    Option<unsafe extern "C" fn(path: *const c_char, file_size: usize, user_data: *mut c_void)>;

/// Which files to list.
pub struct Listing<'a> {
    pub prefix: &'a OsStr,
    pub is_recursive: bool,
    pub allow: Vec<&'a OsStr>,
    pub ignore: Vec<&'a OsStr>,
}

impl Listing<'_> {
    /// Calls `on_file` with the path and the length in bytes of each matching file.
    ///
    /// # Errors
    /// The errors of [`Loader::list`].
    pub fn for_each(
        &self,
        loader: &Loader,
        mut on_file: impl FnMut(&CStr, usize),
    ) -> Result<(), Failure> {
        let fail = |error| Failure::of(&error, false);
        let directory = Location::parse_os(self.prefix).map_err(fail)?;
        let listed = loader.list(&directory, self.is_recursive).map_err(fail)?;
        let (allow, ignore) = (matchers(&self.allow), matchers(&self.ignore));
        for file in listed {
            let path = match file.location {
                Location::File(path) => path.into_os_string().into_vec(),
                Location::Object(uri) => uri.to_string().into_bytes(),
            };
            let matches = |pattern: &Option<Glob>| {
                pattern.as_ref().is_some_and(|pattern| pattern.is_match(&path))
            };
            let is_allowed = allow.is_empty() || allow.iter().any(matches);
            if is_allowed
                && !ignore.iter().any(matches)
                && let Ok(path) = CString::new(path)
            {
                on_file(&path, usize::try_from(file.len_bytes).unwrap_or(usize::MAX));
            }
        }
        Ok(())
    }
}

/// Compiles the patterns. A pattern that matches nothing, such as `[a`, is `None`.
fn matchers(patterns: &[&OsStr]) -> Vec<Option<Glob>> {
    patterns.iter().map(|pattern| matcher(pattern.to_str()?)).collect()
}

/// Compiles one pattern of fnmatch(3), where braces are literal and `**` is the same as `*`.
fn matcher(pattern: &str) -> Option<Glob> {
    let mut globs = String::with_capacity(pattern.len());
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' | '}' => globs.extend(['[', character, ']']),
            '*' if characters.peek() == Some(&'*') => {}
            '\\' => globs.extend([character, characters.next()?]),
            other => globs.push(other),
        }
    }
    Glob::new(&globs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, path, matches) in [
            ("*.safetensors", "/m/a/x.safetensors", true),
            ("x.safetensors", "/m/x.safetensors", false),
            ("*/a/*", "/m/a/b/c", true),
            ("*/**/c", "/m/a/c", true),
            ("/m/?", "/m/a", true),
            ("/m?a", "/m/a", true),
            ("*.b[i]n", "x.bin", true),
            ("*.b[!x]n", "x.bin", true),
            ("*.b[!i]n", "x.bin", false),
            (r"*\*n", "x*n", true),
            (r"*\*n", "xbn", false),
            ("{a,b}", "{a,b}", true),
            ("{a,b}", "a", false),
            ("*[a", "x[a", false),
            ("", "", true),
            ("", "x", false),
        ] {
            let is_match = matcher(pattern).is_some_and(|matcher| matcher.is_match(path));
            assert_eq!(is_match, matches, "{pattern} {path}");
        }
    }
}
