//! The text of a header, cut into pieces.
//!
//! ```text
//! text:   { "a": ..., "b": { ... },|"c": { ... }, "d": { ... },|"e": { ... } }
//! cut at multiples of a length:  ^                 ^
//! ```
//!
//! A piece begins after the first comma from its cut on that is between a brace and a quotation mark, if that
//! comes before the next cut; otherwise it is empty. It ends where the next one begins that is not. Each piece
//! finds both places by itself, so that the pieces of a file are read, too, by the threads that scan them.

use crate::error::Result;
use std::borrow::Cow;
use std::ops::Range;

/// The end of the entry before a piece, the comma, and the beginning of the piece.
const BORDER: &[u8; 3] = b"},\"";

/// How much text after its cut a piece is searched for its end in, at first. Entries are shorter.
const REST_BYTES: usize = 4 << 10;

/// The text of a header.
pub(super) enum HeaderText<'a> {
    /// In memory.
    Read(Cow<'a, [u8]>),
    /// Its length in bytes, and a function that reads a part of it.
    Parts(usize, Box<ReadPart<'a>>),
}

/// Reads the bytes of a header in a range.
type ReadPart<'a> = dyn Fn(Range<usize>) -> Result<Vec<u8>> + Sync + 'a;

/// A piece of a text.
pub(super) struct TextPiece<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where the piece is in `bytes`.
    range: Range<usize>,
    /// Whether the piece is the first of the text, and whether it is the last.
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl HeaderText<'_> {
    /// The length in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Read(text) => text.len(),
            Self::Parts(len, _) => *len,
        }
    }

    /// The bytes in `range`.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn part(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Read(text) => Ok(Cow::Borrowed(&text[range])),
            Self::Parts(_, read) => Ok(Cow::Owned(read(range)?)),
        }
    }

    /// Piece `number` of `pieces`; `None` if it is empty.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn piece(&self, number: usize, pieces: usize) -> Result<Option<TextPiece<'_>>> {
        let (len, piece_bytes) = (self.len(), self.len().div_ceil(pieces));
        let (from, is_first) = (number * piece_bytes, number == 0);
        let mut rest_bytes = REST_BYTES;
        loop {
            let to = (from + piece_bytes + rest_bytes).min(len);
            let bytes = self.part(from.min(len)..to)?;
            let start = match is_first {
                true => Some(0),
                false => border(&bytes, 0).filter(|start| *start < piece_bytes + START_BYTES),
            };
            let Some(start) = start else { return Ok(None) };
            let end = border(&bytes, piece_bytes).or((to == len).then_some(bytes.len()));
            if let Some(end) = end {
                let (range, is_last) = (start..end, from + end == len);
                return Ok(Some(TextPiece { bytes, range, is_first, is_last }));
            }
            rest_bytes *= 16;
        }
    }
}

impl TextPiece<'_> {
    /// The text of the piece.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// How much of a border is in the piece before.
const START_BYTES: usize = BORDER.len() - 1;

/// Where the first piece begins whose border is at or after `from`.
fn border(text: &[u8], from: usize) -> Option<usize> {
    let at = text.get(from..)?.windows(BORDER.len()).position(|bytes| bytes == BORDER)?;
    Some(from + at + START_BYTES)
}
