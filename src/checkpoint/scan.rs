//! Reads headers in the form that they nearly always have, quickly and on several threads.
//!
//! In this form the names of tensors have no escapes, and the value of each tensor has the fields
//! `dtype`, `shape` and `data_offsets` and no others. [`scan`] returns `None` for every other text, and
//! for one whose tensors do not fill the file. The parser of [`json`] then reads the text from its
//! beginning. So errors come from there alone, and `scan` must accept no text that it refuses.
//!
//! A long text is cut into pieces ([`HeaderText`]) after commas that usually end an entry, but may lie
//! within a name. That is noticed: a piece is accepted if it consists of whole entries, each with its comma,
//! under the condition that it begins between two entries. The first piece begins with the text, so the
//! condition holds for it, and an accepted piece ends where the next one begins.

use super::dtype;
use super::header_text::{HeaderText, TextPiece};
use super::json;
use super::parallel;
use super::tensor_info::TensorInfos;
use super::tensor_table::{HashedTensors, NameKeys};
use crate::checksum::crc64_nvme;
use crate::dtype::Dtype;
use crate::error::Result;
use std::collections::BTreeMap;

/// Numbers with more digits are left to the other parser, so that none overflows here.
const DIGITS_MAX: usize = 18;

/// About the length of an entry. It only determines how much memory is reserved.
const ENTRY_BYTES: usize = 64;

/// The shard whose header is read.
pub(super) struct HeaderPlace<'a> {
    pub(super) shard: u32,
    /// The offset of the data in the file.
    pub(super) data_offset_bytes: u64,
    pub(super) data_bytes: u64,
    pub(super) keys: &'a NameKeys,
}

/// The tensors of a header, which was read and checked.
pub(super) struct ScannedHeader {
    /// Together ordered by offset; empty tensors at the same offset are in the order of the text.
    pub(super) tensors: Vec<HashedTensors>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The CRC-64/NVME and the length in bytes of each piece of the text.
    pub(super) crcs: Vec<(u64, u64)>,
}

/// Reads the header `text` in up to `pieces` pieces on `threads` threads.
///
/// # Errors
/// Those of reading the pieces.
pub(super) fn scan(
    text: &HeaderText<'_>,
    pieces: usize,
    threads: usize,
    place: &HeaderPlace<'_>,
) -> Result<Option<ScannedHeader>> {
    let piece = |number: usize| {
        let text = text.piece(number, pieces)?;
        Ok(text.map(|text| Piece::scan(&text, place)))
    };
    let scanned = parallel::try_map(pieces, threads, piece)?;
    let scanned = scanned.into_iter().flatten().collect::<Option<Vec<_>>>();
    Ok(scanned.and_then(|scanned| put_together(scanned, place)))
}

/// The header that consists of these pieces.
fn put_together(scanned: Vec<Piece>, place: &HeaderPlace<'_>) -> Option<ScannedHeader> {
    let (mut end, mut is_contiguous) = (0, true);
    for piece in scanned.iter().filter(|piece| !piece.tensors.is_empty()) {
        is_contiguous &= piece.is_contiguous && piece.begin == end;
        end = piece.end;
    }
    let mut header = ScannedHeader {
        tensors: Vec::with_capacity(scanned.len()),
        metadata: BTreeMap::new(),
        crcs: Vec::with_capacity(scanned.len()),
    };
    let mut has_metadata = false;
    for piece in scanned {
        header.tensors.push(piece.tensors);
        header.crcs.push(piece.crc);
        let Some(metadata) = piece.metadata else { continue };
        if std::mem::replace(&mut has_metadata, true) {
            return None;
        }
        header.metadata = metadata;
    }
    if !is_contiguous {
        end = sort(&mut header.tensors, place)?;
    }
    (end == place.data_bytes).then_some(header)
}

/// Sorts `tensors` by offset. Returns the offset at which they end in the data if they fill it until
/// there.
fn sort(tensors: &mut Vec<HashedTensors>, place: &HeaderPlace<'_>) -> Option<u64> {
    let mut all: Vec<_> = tensors.drain(..).flat_map(|part| part.tensors).collect();
    all.sort_by_key(|tensor| (tensor.offset_bytes(), tensor.len_bytes()));
    let mut end = place.data_offset_bytes;
    for tensor in &all {
        if tensor.offset_bytes() != end {
            return None;
        }
        end += tensor.len_bytes();
    }
    tensors.push(HashedTensors::new(all, place.keys));
    Some(end - place.data_offset_bytes)
}

/// The entries of a part of a header.
struct Piece {
    tensors: HashedTensors,
    metadata: Option<BTreeMap<String, String>>,
    crc: (u64, u64),
    /// The offset in the data of the first tensor, and the end of the last one.
    begin: u64,
    end: u64,
    /// Whether each tensor begins where the one before it ends.
    is_contiguous: bool,
}

impl Piece {
    fn scan(piece: &TextPiece<'_>, place: &HeaderPlace<'_>) -> Option<Self> {
        let text = piece.bytes();
        let crc = (crc64_nvme(text), text.len() as u64);
        let mut scanner = Scanner {
            text: std::str::from_utf8(text).ok()?,
            at: 0,
            data_offset_bytes: place.data_offset_bytes,
            infos: TensorInfos::with_capacity(text.len() / ENTRY_BYTES),
            metadata: None,
            shape: Vec::new(),
            last_dtype: Dtype::BF16,
            begin: None,
            end: 0,
            is_contiguous: true,
        };
        scanner.entries(piece.is_first, piece.is_last)?;
        let Scanner { infos, metadata, begin, end, is_contiguous, .. } = scanner;
        let tensors = HashedTensors::new(infos.of_shard(place.shard), place.keys);
        Some(Self { tensors, metadata, crc, begin: begin.unwrap_or(0), end, is_contiguous })
    }
}

/// Reads entries. Its functions return `None`, or false, where the text goes on in another way.
struct Scanner<'a> {
    text: &'a str,
    /// The number of bytes that were read.
    at: usize,
    data_offset_bytes: u64,
    infos: TensorInfos,
    metadata: Option<BTreeMap<String, String>>,
    /// The shape of the entry that is being read.
    shape: Vec<usize>,
    /// The type of the last entry, which usually is that of the next one.
    last_dtype: Dtype,
    begin: Option<u64>,
    end: u64,
    is_contiguous: bool,
}

impl<'a> Scanner<'a> {
    /// Reads the entries up to the end of the text, and the braces around those of the whole header.
    fn entries(&mut self, is_first: bool, is_last: bool) -> Option<()> {
        if is_first {
            // The format permits no whitespace before it.
            if !self.eat(b"{") {
                return None;
            }
            self.skip_space();
            if is_last && self.eat(b"}") {
                return self.ends().then_some(());
            }
        }
        loop {
            self.entry()?;
            match self.next_token()? {
                b',' if self.ends() => return (!is_last).then_some(()),
                b',' => {}
                b'}' if is_last => return self.ends().then_some(()),
                _ => return None,
            }
        }
    }

    /// Reads the entry of a tensor, or the metadata.
    fn entry(&mut self) -> Option<()> {
        let name = self.string()?;
        self.token(b':')?;
        if name == "__metadata__" {
            return self.read_metadata();
        }
        self.token(b'{')?;
        let (mut dtype, mut has_shape, mut offsets) = (None, false, None);
        loop {
            self.skip_space();
            let is_repeated = if self.eat(b"\"dtype\"") {
                dtype.replace(self.dtype()?).is_some()
            } else if self.eat(b"\"shape\"") {
                self.read_shape()?;
                std::mem::replace(&mut has_shape, true)
            } else if self.eat(b"\"data_offsets\"") {
                offsets.replace(self.offsets()?).is_some()
            } else {
                return None;
            };
            match self.next_token()? {
                _ if is_repeated => return None,
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        let (dtype, [begin, end]) = (dtype?, offsets?);
        let len_bytes = end.checked_sub(begin)?;
        if !has_shape || dtype::len_bytes(dtype, &self.shape) != Ok(len_bytes) {
            return None;
        }
        match self.begin {
            Some(_) => self.is_contiguous &= begin == self.end,
            None => self.begin = Some(begin),
        }
        self.end = end;
        let bytes = [self.data_offset_bytes + begin, len_bytes];
        self.infos.add(name, dtype, &self.shape, bytes);
        Some(())
    }

    fn read_metadata(&mut self) -> Option<()> {
        let (metadata, len) = json::metadata_at_start(&self.text[self.at..])?;
        self.at += len;
        self.metadata.replace(metadata).is_none().then_some(())
    }

    fn dtype(&mut self) -> Option<Dtype> {
        self.token(b':')?;
        let name = self.string()?;
        if name != self.last_dtype.as_str() {
            self.last_dtype = Dtype::from_name(name)?;
        }
        Some(self.last_dtype)
    }

    fn read_shape(&mut self) -> Option<()> {
        self.token(b':')?;
        self.token(b'[')?;
        self.shape.clear();
        self.skip_space();
        if self.eat(b"]") {
            return Some(());
        }
        loop {
            let dimension = self.number()?;
            self.shape.push(usize::try_from(dimension).ok()?);
            match self.next_token()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn offsets(&mut self) -> Option<[u64; 2]> {
        self.token(b':')?;
        self.token(b'[')?;
        let begin = self.number()?;
        self.token(b',')?;
        let end = self.number()?;
        self.token(b']')?;
        Some([begin, end])
    }

    /// Reads a string without escapes.
    fn string(&mut self) -> Option<&'a str> {
        self.token(b'"')?;
        let start = self.at;
        let len = plain_len(&self.text.as_bytes()[start..]);
        self.at = start + len;
        self.eat(b"\"").then(|| &self.text[start..start + len])
    }

    fn number(&mut self) -> Option<u64> {
        self.skip_space();
        let text = &self.text.as_bytes()[self.at..];
        let (mut value, mut count) = (0, 0);
        for byte in &text[..text.len().min(DIGITS_MAX + 1)] {
            let digit = byte.wrapping_sub(b'0');
            if digit >= 10 {
                break;
            }
            value = value * 10 + u64::from(digit);
            count += 1;
        }
        let has_zero_in_front = count > 1 && text[0] == b'0';
        self.at += count;
        (1..=DIGITS_MAX).contains(&count).then_some(value).filter(|_| !has_zero_in_front)
    }

    /// Reads whitespace and then `token`.
    fn token(&mut self, token: u8) -> Option<()> {
        (self.next_token()? == token).then_some(())
    }

    /// Reads whitespace and then a character.
    fn next_token(&mut self) -> Option<u8> {
        let mut token = *self.text.as_bytes().get(self.at)?;
        if token <= b' ' {
            self.skip_space();
            token = *self.text.as_bytes().get(self.at)?;
        }
        self.at += 1;
        Some(token)
    }

    /// Reads `expected`, if it comes next.
    fn eat<const LEN: usize>(&mut self, expected: &[u8; LEN]) -> bool {
        let comes = self.text.as_bytes()[self.at..].starts_with(expected);
        self.at += if comes { LEN } else { 0 };
        comes
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// Reads whitespace. Returns whether the text ends after it.
    fn ends(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }
}

/// How many bytes come before the first that ends a string without escapes, or is not allowed in it.
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // The highest bit of each byte that is below `limit`. A byte after such a one may have it, too.
    let below =
        |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & (ONES << 7);
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = text.as_chunks();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = below(word, b' ') | is(word, b'"') | is(word, b'\\');
        if found != 0 {
            return number * size_of::<u64>() + (found.trailing_zeros() / u8::BITS) as usize;
        }
    }
    let ends = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    text.len() - rest.len() + rest.iter().position(ends).unwrap_or(rest.len())
}

#[cfg(test)]
#[path = "scan_tests.rs"]
pub(super) mod tests;
