//! Reads and checks the header of one shard and creates its [`TensorInfo`]s.
//!
//! ```text
//! | length, 8 bytes, little endian | header, JSON | data: the tensors, end to end |
//! ```
//!
//! Every number of the file is checked before it is used: the length against the file before memory
//! is allocated for it, shapes against offsets, and offsets against each other and the file. The
//! `safetensors` crate 0.8 accepts every file that is accepted here. Two checks are stricter on
//! purpose: the header must start with `{`, which the format demands but the crate does not check,
//! and the JSON must not repeat a key (see [`json`]).
//!
//! [`scan`] reads a header of the usual form. [`json`] parses every other one, and finds the errors.
//!
//! Memory is linear in the header: the tensors created from it, and its text, or the pieces of it that are
//! read at the same time.

use super::header_text::HeaderText;
use super::json;
use super::layout::{CheckResult, check_layout, occurs_twice};
use super::parallel;
use super::scan::{HeaderPlace, ScannedHeader, scan};
use super::shard::Shard;
use super::tensor_info::{TensorInfo, TensorInfos};
use super::tensor_table::{HashedTensors, NameKeys};
use super::text::{Shortened, first_repeated};
use crate::checksum::{crc64_nvme, crc64_nvme_of_parts};
use crate::error::{Error, ErrorKind, Result, Size};
use crate::source::{Cancellation, Source};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The maximum length of a header in bytes, as in the `safetensors` crate.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A length above this is damage, or the start of a file of another format, and not metadata that
/// have grown.
const PLAUSIBLE_HEADER_BYTES: u64 = 4 << 30;

const LENGTH_BYTES: u64 = 8;

/// A header is read in pieces of about this length, on several threads, if it has more than one. Each thread
/// uses the memory of a piece again for its next one.
const PIECE_BYTES: usize = 512 << 10;

/// A shard and its tensors.
pub(super) struct Header {
    /// The checkpoint sets its range of tensors.
    pub(super) shard: Shard,
    /// Together ordered by offset; empty tensors at the same offset are in the header's order.
    pub(super) tensors: Vec<HashedTensors>,
}

/// Reads and checks the header of `source`, which is the shard number `shard` of the checkpoint. Other
/// threads may read `others` more shards at the same time.
///
/// This does not check that names are unique. The checkpoint checks that for all shards together,
/// with the hashes that are computed here with `keys`.
///
/// # Errors
/// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint), naming the location, the tensor and the
/// reason; the errors of reading the source.
pub(super) fn read(
    source: Arc<dyn Source>,
    shard: u32,
    others: usize,
    keys: &NameKeys,
    cancellation: &Cancellation,
) -> Result<Header> {
    let header_bytes = read_length(source.as_ref(), cancellation)?;
    let pieces = (header_bytes / PIECE_BYTES).max(1);
    let threads = parallel::computing_threads(pieces) / (others + 1);
    let in_source = TextInSource { source: source.as_ref(), header_bytes, cancellation };
    let text = in_source.text(pieces)?;
    // At most the file's length, as read_length has checked.
    let data_offset_bytes = LENGTH_BYTES + header_bytes as u64;
    let data_bytes = source.len_bytes() - data_offset_bytes;
    let place = HeaderPlace { shard, data_offset_bytes, data_bytes, keys };
    let header = match scan(&text, pieces, threads, &place)? {
        Some(header) => Ok(header),
        None => parse(&text.part(0..header_bytes)?, &place),
    };
    drop(text);
    let header = header
        .map_err(|reason| invalid(source.as_ref(), format_args!("{reason}{}", remedy(&reason))))?;
    let length = (header_bytes as u64).to_le_bytes();
    let parts = [(crc64_nvme(&length), LENGTH_BYTES)].into_iter().chain(header.crcs);
    let (header_crc, metadata) = (crc64_nvme_of_parts(parts), header.metadata);
    let shard = Shard { source, data_offset_bytes, header_crc, tensors: 0..0, metadata };
    Ok(Header { shard, tensors: header.tensors })
}

/// Describes the bytes of `source` from `start` on as tensors: pieces that end at multiples of
/// `piece_bytes`.
pub(super) fn of_pieces(
    source: Arc<dyn Source>,
    shard: u32,
    start: u64,
    piece_bytes: u64,
    keys: &NameKeys,
) -> Header {
    let len_bytes = source.len_bytes();
    let begins = (start / piece_bytes..len_bytes.div_ceil(piece_bytes)).map(|n| n * piece_bytes);
    let tensors = begins.map(|begin| {
        let offset_bytes = begin.max(start);
        let len_bytes = (begin + piece_bytes).min(len_bytes) - offset_bytes;
        TensorInfo::of_bytes(&format!("{shard}/{offset_bytes}"), shard, [offset_bytes, len_bytes])
    });
    let tensors = vec![HashedTensors::new(tensors.collect(), keys)];
    let metadata = BTreeMap::new();
    let shard = Shard { source, data_offset_bytes: 0, header_crc: 0, tensors: 0..0, metadata };
    Header { shard, tensors }
}

/// The header of `shard` with no tensors and no metadata.
pub(super) fn without_tensors(shard: &Shard) -> Header {
    let shard = Shard { tensors: 0..0, metadata: BTreeMap::new(), ..shard.clone() };
    Header { shard, tensors: Vec::new() }
}

impl Header {
    /// Adds a tensor, whose name has a hash under `keys`.
    pub(super) fn add(&mut self, tensor: TensorInfo, keys: &NameKeys) {
        if self.tensors.is_empty() {
            self.tensors.push(HashedTensors::default());
        }
        self.tensors[0].push(tensor, keys);
    }
}

/// What to do about a header that is invalid for `reason`.
fn remedy(reason: &str) -> &'static str {
    match reason.ends_with('?') {
        true => "", // it asks about the download
        false => REMEDY,
    }
}

/// What to do about an invalid header.
pub(super) const REMEDY: &str =
    "; download the file again, or write it again with the safetensors library";

fn invalid(source: &dyn Source, reason: impl Display) -> Error {
    Error::new(ErrorKind::InvalidCheckpoint, format!("{}: {reason}", source.location()))
}

/// Reads the length of the header in bytes.
fn read_length(source: &dyn Source, cancellation: &Cancellation) -> Result<usize> {
    let file_bytes = source.len_bytes();
    if file_bytes < LENGTH_BYTES {
        return Err(invalid(source, too_short(file_bytes)));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    read_exact(source, &mut length, 0, cancellation)?;
    check_limit(source, length, cancellation)?;
    checked_length(length, file_bytes).map_err(|reason| invalid(source, reason))
}

/// The text of a header that was not read yet.
struct TextInSource<'a> {
    source: &'a dyn Source,
    header_bytes: usize,
    cancellation: &'a Cancellation,
}

impl TextInSource<'_> {
    /// The text for a scan in `pieces`, each of which reads its part. An object is read by one request,
    /// and a file that is verified from front to back, so their texts are read here.
    fn text(&self, pieces: usize) -> Result<HeaderText<'_>> {
        match pieces == 1 || self.source.is_remote() || self.source.verifier().is_some() {
            true => Ok(HeaderText::Read(self.read(0..self.header_bytes)?.into())),
            false => Ok(HeaderText::Parts(self.header_bytes, Box::new(|range| self.read(range)))),
        }
    }

    /// Reads the bytes of the header in `range`.
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        text.try_reserve_exact(range.len()).map_err(|cause| {
            let (location, size) = (self.source.location(), Size(self.header_bytes as u64));
            let sentence =
                format!("cannot allocate {size} for the header of {location}; free memory");
            Error::new(ErrorKind::OutOfMemory, sentence).with_source(cause)
        })?;
        text.resize(range.len(), 0);
        let offset = LENGTH_BYTES + range.start as u64;
        read_exact(self.source, &mut text, offset, self.cancellation)?;
        Ok(text)
    }
}

/// Checks that a header which is too long is none at all: a text that begins like one says that the
/// file is a safetensors file.
fn check_limit(source: &dyn Source, length: [u8; 8], cancellation: &Cancellation) -> Result<()> {
    const START: &[u8; 2] = b"{\"";
    let header_bytes = u64::from_le_bytes(length);
    let mut start = [0; START.len()];
    if header_bytes <= MAX_HEADER_BYTES || source.len_bytes() < LENGTH_BYTES + start.len() as u64 {
        return Ok(());
    }
    read_exact(source, &mut start, LENGTH_BYTES, cancellation)?;
    if start != *START {
        return Ok(());
    }
    if header_bytes > PLAUSIBLE_HEADER_BYTES {
        let reason = format!(
            "the first 8 bytes give a header of {}, which no safetensors file has; they are damaged, \
             or the file has another format{REMEDY}",
            Size(header_bytes)
        );
        return Err(invalid(source, reason));
    }
    let reason = format!(
        "the header has {header_bytes} bytes, more than the limit of 100 MB ({MAX_HEADER_BYTES} \
         bytes) that the safetensors format has; write the tensors to several files, or shorten \
         __metadata__"
    );
    Err(invalid(source, reason))
}

fn read_exact(
    source: &dyn Source,
    into: &mut [u8],
    offset: u64,
    cancellation: &Cancellation,
) -> Result<()> {
    source.read_exact_at(into, offset, cancellation).map_err(|cause| {
        let location = source.location();
        if cause.kind() == io::ErrorKind::UnexpectedEof {
            let sentence = format!("{location}: the file was truncated while its header was read");
            return Error::new(ErrorKind::Changed, sentence).with_source(cause);
        }
        Error::from_io(format_args!("read the header of {location}"), cause)
    })
}

fn too_short(file_bytes: u64) -> String {
    if file_bytes == 0 {
        return "the file is empty; was its download finished?".into();
    }
    format!(
        "the file has {}, too few for the {LENGTH_BYTES} bytes that a safetensors file begins \
         with; was its download finished?",
        Size(file_bytes)
    )
}

/// Returns the length of the header of a file that has `file_bytes` bytes and begins with `length`.
fn checked_length(length: [u8; 8], file_bytes: u64) -> CheckResult<usize> {
    let header_bytes = u64::from_le_bytes(length);
    let remaining_bytes = file_bytes.saturating_sub(LENGTH_BYTES);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(format!(
            "the first 8 bytes give a header of {}, above the limit of {}; {}",
            Size(header_bytes),
            Size(MAX_HEADER_BYTES),
            kind_of_file(length)
        ));
    }
    if header_bytes > remaining_bytes {
        return Err(format!(
            "the first 8 bytes give a header of {}, but {} follow; the file is truncated or not a \
             safetensors file",
            Size(header_bytes),
            Size(remaining_bytes)
        ));
    }
    // Below 2^32, so it fits in a usize.
    Ok(header_bytes as usize)
}

/// Guesses the kind of a file that begins with `bytes` and is not a safetensors file.
fn kind_of_file(bytes: [u8; 8]) -> &'static str {
    match &bytes {
        b"version " => "it looks like a Git LFS pointer: fetch the file itself with git lfs pull",
        [b'P', b'K', 3, 4, ..] => "it looks like a PyTorch or zip file, not a safetensors file",
        [0x80, 2..=5, ..] => "it looks like a Python pickle, not a safetensors file",
        [b'G', b'G', b'U', b'F', ..] => "it looks like a GGUF file, not a safetensors file",
        [b'{', ..] => {
            "it looks like JSON, not a safetensors file (the name of an index ends in \
             .safetensors.index.json)"
        }
        [b'<', ..] => {
            "it looks like a web page, not a safetensors file (the URL of a directory ends in /)"
        }
        _ => "it is not a safetensors file",
    }
}

/// Parses and checks the header `text`, in whatever form it is.
pub(super) fn parse(text: &[u8], place: &HeaderPlace<'_>) -> CheckResult<ScannedHeader> {
    let crcs = vec![(crc64_nvme(text), text.len() as u64)];
    let text = std::str::from_utf8(text).map_err(|error| {
        format!("the header is not UTF-8 at byte {} of the header", error.valid_up_to())
    })?;
    check_start(text)?;
    let mut header = json::parse_header(text)
        .map_err(|error| format!("the header is invalid: {}", Shortened(error)))?;
    header.tensors.sort_by_key(|entry| entry.data_offsets);
    check_layout(&header.tensors, place.data_bytes).map_err(|reason| {
        // A repeated name explains more than the overlap that results from it.
        let mut names = header.tensors.iter().map(|entry| &*entry.name);
        first_repeated(&mut names).map_or(reason, occurs_twice)
    })?;
    let mut infos = TensorInfos::with_capacity(header.tensors.len());
    for entry in header.tensors {
        let [begin, end] = entry.data_offsets;
        let bytes = [place.data_offset_bytes + begin, end - begin];
        infos.add(&entry.name, entry.dtype, &entry.shape, bytes);
    }
    let tensors = vec![HashedTensors::new(infos.of_shard(place.shard), place.keys)];
    Ok(ScannedHeader { tensors, metadata: header.metadata, crcs })
}

fn check_start(text: &str) -> CheckResult<()> {
    match text.chars().next() {
        Some('{') => Ok(()),
        Some(other) => Err(format!("the header begins with {other:?} instead of '{{'")),
        None => Err("the header is empty; the shortest valid header is {}".into()),
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;

#[cfg(test)]
#[cfg(feature = "safetensors")]
#[path = "header_agreement_tests.rs"]
mod agreement;

#[cfg(test)]
#[cfg(feature = "safetensors")]
#[path = "header_fuzz_tests.rs"]
mod fuzz;
