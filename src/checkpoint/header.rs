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
//! Memory is linear in the header: its text and the tensors created from it.

use super::dtype;
use super::json::{self, HeaderEntry};
use super::shard::{Shard, TensorInfo};
use super::tensor_table::NameKeys;
use super::text::{Quoted, Shape, Shortened, first_repeated};
use crate::checksum::{crc64_nvme, crc64_nvme_of_parts};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result, Size};
use crate::source::{Cancellation, Source};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::sync::Arc;

/// The maximum length of a header in bytes, as in the `safetensors` crate.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A length above this is damage, or the start of a file of another format, and not metadata that
/// have grown.
const PLAUSIBLE_HEADER_BYTES: u64 = 4 << 30;

const LENGTH_BYTES: u64 = 8;

/// The error is a sentence that says why a shard is invalid; the caller prepends the location.
type CheckResult<T> = std::result::Result<T, String>;

/// A shard and its tensors.
pub(super) struct Header {
    /// The checkpoint sets its range of tensors.
    pub(super) shard: Shard,
    /// Ordered by offset; empty tensors at the same offset are in the header's order.
    pub(super) tensors: Vec<TensorInfo>,
    /// The hash of each tensor's name.
    pub(super) hashes: Vec<u64>,
}

/// Reads and checks the header of `source`, which is the shard number `shard` of the checkpoint.
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
    keys: &NameKeys,
    cancellation: &Cancellation,
) -> Result<Header> {
    let text = read_text(source.as_ref(), cancellation)?;
    // At most the file's length, as read_text has checked.
    let data_offset_bytes = LENGTH_BYTES + text.len() as u64;
    let data_bytes = source.len_bytes() - data_offset_bytes;
    let header = parse(&text, data_bytes)
        .map_err(|reason| invalid(source.as_ref(), format_args!("{reason}{}", remedy(&reason))))?;
    let hashes = header.tensors.iter().map(|entry| keys.hash(&entry.name)).collect();
    let tensors = header.tensors.into_iter();
    let tensors = tensors.map(|entry| tensor_info(entry, shard, data_offset_bytes)).collect();
    let length = (text.len() as u64).to_le_bytes();
    let parts = [(crc64_nvme(&length), LENGTH_BYTES), (crc64_nvme(&text), text.len() as u64)];
    let (header_crc, metadata) = (crc64_nvme_of_parts(parts), header.metadata);
    let shard = Shard { source, data_offset_bytes, header_crc, tensors: 0..0, metadata };
    Ok(Header { shard, tensors, hashes })
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
        let (name, shape) = (format!("{shard}/{offset_bytes}").into(), [len_bytes as usize].into());
        TensorInfo { name, shape, offset_bytes, len_bytes, shard, dtype: Dtype::U8 }
    });
    let tensors: Vec<_> = tensors.collect();
    let hashes = tensors.iter().map(|tensor| keys.hash(&tensor.name)).collect();
    let metadata = BTreeMap::new();
    let shard = Shard { source, data_offset_bytes: 0, header_crc: 0, tensors: 0..0, metadata };
    Header { shard, tensors, hashes }
}

/// The header of `shard` with no tensors and no metadata.
pub(super) fn without_tensors(shard: &Shard) -> Header {
    let shard = Shard { tensors: 0..0, metadata: BTreeMap::new(), ..shard.clone() };
    Header { shard, tensors: Vec::new(), hashes: Vec::new() }
}

impl Header {
    /// Adds a tensor, whose name has a hash under `keys`.
    pub(super) fn add(&mut self, tensor: TensorInfo, keys: &NameKeys) {
        self.hashes.push(keys.hash(&tensor.name));
        self.tensors.push(tensor);
    }
}

/// The tensor of a checked `entry`.
fn tensor_info(entry: HeaderEntry, shard: u32, data_offset_bytes: u64) -> TensorInfo {
    let [begin, end] = entry.data_offsets;
    TensorInfo {
        name: entry.name,
        dtype: entry.dtype,
        shape: entry.shape,
        shard,
        offset_bytes: data_offset_bytes + begin,
        len_bytes: end - begin,
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

/// Reads the bytes of the header.
fn read_text(source: &dyn Source, cancellation: &Cancellation) -> Result<Vec<u8>> {
    let file_bytes = source.len_bytes();
    if file_bytes < LENGTH_BYTES {
        return Err(invalid(source, too_short(file_bytes)));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    read_exact(source, &mut length, 0, cancellation)?;
    check_limit(source, length, cancellation)?;
    let header_bytes =
        checked_length(length, file_bytes).map_err(|reason| invalid(source, reason))?;
    let mut text = Vec::new();
    text.try_reserve_exact(header_bytes).map_err(|cause| {
        let (location, size) = (source.location(), Size(header_bytes as u64));
        let sentence = format!("cannot allocate {size} for the header of {location}; free memory");
        Error::new(ErrorKind::OutOfMemory, sentence).with_source(cause)
    })?;
    text.resize(header_bytes, 0);
    read_exact(source, &mut text, LENGTH_BYTES, cancellation)?;
    Ok(text)
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

/// Parses and checks the header `text`, which `data_bytes` bytes of data follow. The tensors are sorted
/// by offset.
fn parse(text: &[u8], data_bytes: u64) -> CheckResult<json::Header> {
    let text = std::str::from_utf8(text).map_err(|error| {
        format!("the header is not UTF-8 at byte {} of the header", error.valid_up_to())
    })?;
    check_start(text)?;
    let mut header = json::parse_header(text)
        .map_err(|error| format!("the header is invalid: {}", Shortened(error)))?;
    header.tensors.sort_by_key(|entry| entry.data_offsets);
    match check_layout(&header.tensors, data_bytes) {
        Ok(()) => Ok(header),
        // A repeated name explains more than the overlap that results from it.
        Err(reason) => {
            let mut names = header.tensors.iter().map(|entry| &*entry.name);
            Err(first_repeated(&mut names).map_or(reason, occurs_twice))
        }
    }
}

fn check_start(text: &str) -> CheckResult<()> {
    match text.chars().next() {
        Some('{') => Ok(()),
        Some(other) => Err(format!("the header begins with {other:?} instead of '{{'")),
        None => Err("the header is empty; the shortest valid header is {}".into()),
    }
}

/// The reason why a header in which the tensor `name` occurs twice is invalid.
pub(super) fn occurs_twice(name: &str) -> String {
    format!("tensor {} occurs twice in the header", Quoted(name))
}

/// Checks that `tensors`, sorted by offset, fill `data_bytes` without hole or overlap.
fn check_layout(tensors: &[HeaderEntry], data_bytes: u64) -> CheckResult<()> {
    let mut end_of_last = 0;
    for (i, entry) in tensors.iter().enumerate() {
        check_offsets(entry, i.checked_sub(1).map(|last| &tensors[last]))?;
        check_size(entry)?;
        end_of_last = entry.data_offsets[1];
    }
    if end_of_last > data_bytes {
        return Err(format!(
            "the file is truncated: the header describes {} of tensor data, the file has {}: {} \
             missing; was its download finished?",
            Size(end_of_last),
            Size(data_bytes),
            Size(end_of_last - data_bytes)
        ));
    }
    if end_of_last < data_bytes {
        return Err(format!(
            "the header describes {} of tensor data, the file has {}: {} too many",
            Size(end_of_last),
            Size(data_bytes),
            Size(data_bytes - end_of_last)
        ));
    }
    Ok(())
}

/// Checks that `entry` begins where the one before it ends.
fn check_offsets(entry: &HeaderEntry, before: Option<&HeaderEntry>) -> CheckResult<()> {
    let name = Quoted(&entry.name);
    let [begin, end] = entry.data_offsets;
    if end < begin {
        return Err(format!(
            "tensor {name} has data_offsets [{begin}, {end}], which end before they begin"
        ));
    }
    match before {
        None if begin == 0 => Ok(()),
        None => Err(format!(
            "tensor {name}, the first of the data, begins at byte {begin} instead of 0"
        )),
        Some(HeaderEntry { data_offsets: [_, expected], .. }) if begin == *expected => Ok(()),
        Some(HeaderEntry { name: before, data_offsets: [_, expected], .. }) => Err(format!(
            "tensor {name} begins at byte {begin} of the data, but tensor {} before it ends at \
             {expected}: {}",
            Quoted(before),
            if begin < *expected { "they overlap" } else { "there is a hole" }
        )),
    }
}

/// Checks that the length which follows from the shape and type of `entry` agrees with its offsets.
fn check_size(entry: &HeaderEntry) -> CheckResult<()> {
    let [begin, end] = entry.data_offsets;
    let of_shape = match dtype::len_bytes(entry.dtype, &entry.shape) {
        Ok(len_bytes) if len_bytes == end - begin => return Ok(()),
        Ok(len_bytes) => format!(
            "which is {}, but data_offsets [{begin}, {end}] give {}",
            Size(len_bytes),
            Size(end - begin)
        ),
        Err(dtype::SizeError::Overflow) => "whose size does not fit 64 bits".into(),
        Err(dtype::SizeError::PartOfByte(bits)) => {
            format!("which is {bits} bits, not a whole number of bytes")
        }
    };
    let (name, shape) = (Quoted(&entry.name), Shape(&entry.shape));
    Err(format!("tensor {name} has shape {shape} of {}, {of_shape}", entry.dtype))
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
