//! The text of a location, for people.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What messages and listings show of a location. It leaves out users, passwords and queries, so that
/// different objects may have the same text.
///
/// For that reason it cannot be compared or hashed, and nothing is looked up by it:
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
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LocationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
