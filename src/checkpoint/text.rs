//! Formats names, shapes and numbers for messages.
//!
//! A header may hold a name of 100 MB or a shape of a million dimensions, so a message shows only the
//! beginning of them.

use std::collections::HashSet;
use std::fmt;

const MAX_NAME_CHARS: usize = 200;
const MAX_DIMENSIONS: usize = 16;
const MAX_MESSAGE_CHARS: usize = 1000;
/// The end of a message of serde_json has the line and the column.
const MESSAGE_END_CHARS: usize = 60;

/// A name in quotes with escaped control characters, cut after 200 characters.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_NAME_CHARS) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
        }
    }
}

/// The message of a parser, which may quote the text that it parses: cut before its end.
pub(super) struct Shortened<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Shortened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let start = text.char_indices().nth(MAX_MESSAGE_CHARS - MESSAGE_END_CHARS);
        let end = text.char_indices().nth_back(MESSAGE_END_CHARS - 1);
        match (start, end) {
            (Some((start, _)), Some((end, _))) if start < end => {
                write!(f, "{}...{}", &text[..start], &text[end..])
            }
            _ => f.write_str(&text),
        }
    }
}

/// A shape in brackets, cut after 16 dimensions.
pub(super) struct Shape<'a>(pub(super) &'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dimension) in self.0.iter().take(MAX_DIMENSIONS).enumerate() {
            write!(f, "{}{dimension}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(if self.0.len() > MAX_DIMENSIONS { ", ...]" } else { "]" })
    }
}

/// Returns the first name that is equal to an earlier one.
pub(super) fn first_repeated<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_things_are_cut() {
        assert_eq!(Quoted("a\n\u{e9}").to_string(), "\"a\\n\u{e9}\"");
        assert_eq!(Quoted(&"\u{e9}".repeat(201)).to_string().chars().count(), 205);
        assert_eq!(Shape(&[]).to_string(), "[]");
        assert_eq!(Shape(&[2, 3]).to_string(), "[2, 3]");
        assert_eq!(Shortened("a\u{e9}").to_string(), "a\u{e9}");
        assert_eq!(Shortened("\u{e9}".repeat(1000)).to_string(), "\u{e9}".repeat(1000));
        let message = format!("{} at line 1", "\u{e9}".repeat(1000));
        let message = Shortened(message).to_string();
        assert!(message.chars().count() == 1003 && message.ends_with(" at line 1"), "{message}");
        assert!(Shape(&[1; 17]).to_string().ends_with("1, 1, ...]"));
    }
}
