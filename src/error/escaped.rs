//! Text from outside in messages: control characters are escaped.
//!
//! Names of tensors, keys of metadata, paths, keys of objects and the words of servers may hold
//! characters that move a terminal's cursor, change its colours or title, or begin a line that looks
//! like one of ours. [`Escaped`] shows any value without them. Every [`Error`](super::Error), every
//! [`Location`](crate::Location) and all output of the command pass through it.

use std::fmt::{self, Display, Write};

/// Shows a value with its control characters escaped as in Rust (`\n`, `\u{1b}`), and with those that
/// change the direction or the line of the text. All other characters are shown as they are.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(EscapingWriter(f), "{}", self.0)
    }
}

struct EscapingWriter<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for EscapingWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = from.chars();
            for character in characters.by_ref().take(1) {
                write!(self.0, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Whether `character` is a control character, a line or paragraph separator, or changes the direction
/// of the text.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_characters_that_act_are_escaped() {
        let shown = |text: &str| Escaped(text).to_string();
        assert_eq!(shown("a \"b\" \\n \u{e9}\u{6a21}"), "a \"b\" \\n \u{e9}\u{6a21}");
        assert_eq!(shown("\u{1b}[2J\r\n\0\u{9b}\u{202e}x"), r"\u{1b}[2J\r\n\u{0}\u{9b}\u{202e}x");
        assert_eq!(shown(""), "");
        assert_eq!(format!("{}", Escaped(format_args!("a{}\t", 1))), "a1\\t");
    }
}
