//! The text of a location, for people and for JSON.

use crate::error::Escaped;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The text of a location without users, passwords and queries, so that different objects may have
/// the same text.
///
/// `Display` is for people and escapes control characters. The serialized form is for programs: it has
/// every character as it is. A path that is not UTF-8, or that would be read as a URI, is given as an
/// absolute `file://` URL, so that [`Location::parse`](crate::Location::parse) finds the same file.
///
/// As different objects may have the same text, it cannot be compared or hashed, and nothing is looked
/// up by it:
///
/// ```
/// let location = ringload::Location::parse("https://user:secret@host/model.safetensors?v=1").unwrap();
/// let text = ringload::LocationText::from(&location);
/// assert_eq!(text.to_string(), "https://host/model.safetensors?...");
/// ```
///
/// ```compile_fail,E0277
/// fn needs_key<T: std::hash::Hash>() {}
/// needs_key::<ringload::LocationText>();
/// ```
///
/// ```compile_fail,E0277
/// fn needs_equality<T: PartialEq>() {}
/// needs_equality::<ringload::LocationText>();
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocationText(pub(super) String);

impl fmt::Display for LocationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for LocationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
