//! The header of one shard: read, checked, and turned into [`TensorInfo`]s.
//!
//! ```text
//! | length, 8 bytes, little endian | header, JSON | data: the tensors, end to end |
//! ```
//!
//! Every number of the file is checked before it is used: the length against the file before
//! anything is allocated for it, shapes against offsets, offsets against each other and against
//! the file. What is accepted, the `safetensors` crate 0.8 accepts too. On purpose stricter than
//! it: the header starts with `{` (its format says so, its code does not check), and the
//! JSON is as [`json`] says (no key stands twice).
//!
//! Memory is linear in the header: its text, and the tensors made from it.

use super::json::{self, Entry};
use super::names::{NameKeys, NameTable};
use super::text::{Bytes, Quoted, Shape};
use super::{Dtype, Shard, TensorInfo, dtype};
use crate::error::{Error, ErrorKind, Result};
use crate::source::Source;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::sync::Arc;

/// The longest header, in bytes: the limit of the `safetensors` crate.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

const LENGTH_BYTES: u64 = 8;

/// A fact about a shard that makes it invalid; the location is put in front of it.
type Fact<T> = std::result::Result<T, String>;

/// A shard and its tensors.
pub(super) struct Header {
    /// Its range of tensors is left for the checkpoint to set.
    pub(super) shard: Shard,
    /// By offset; those of no bytes at the same offset in the header's order.
    pub(super) tensors: Vec<TensorInfo>,
    /// The hash of each tensor's name.
    pub(super) hashes: Vec<u64>,
}

/// Reads and checks the header of `source`, which is the checkpoint's shard number `shard`.
///
/// All is checked but that no name stands twice: the checkpoint sees to that, for all shards at
/// once, with the hashes that are made here with `keys`.
///
/// # Errors
/// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint), naming location, tensor and fact; else
/// those of reading the source.
pub(super) fn read(source: Arc<dyn Source>, shard: u32, keys: &NameKeys) -> Result<Header> {
    let text = read_text(source.as_ref())?;
    // Not above the file's length, which read_text has seen to.
    let data_offset_bytes = LENGTH_BYTES + text.len() as u64;
    let data_bytes = source.len_bytes() - data_offset_bytes;
    let header = parse(&text, data_bytes).map_err(|fact| invalid(source.as_ref(), fact))?;
    let hashes = header.tensors.iter().map(|entry| keys.hash(&entry.name)).collect();
    let tensors = header.tensors.into_iter();
    let tensors = tensors.map(|entry| place(entry, shard, data_offset_bytes)).collect();
    let shard = Shard { source, data_offset_bytes, tensors: 0..0, metadata: header.metadata };
    Ok(Header { shard, tensors, hashes })
}

/// The bytes of `source` from `start` on as tensors: pieces that end at multiples of `piece_bytes`.
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
    let shard = Shard { source, data_offset_bytes: 0, tensors: 0..0, metadata };
    Header { shard, tensors, hashes }
}

/// The tensor of a checked `entry`.
fn place(entry: Entry, shard: u32, data_offset_bytes: u64) -> TensorInfo {
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

fn invalid(source: &dyn Source, fact: impl Display) -> Error {
    Error::new(ErrorKind::InvalidCheckpoint, format!("{}: {fact}", source.location()))
}

/// The bytes of the header, which lies within the file.
fn read_text(source: &dyn Source) -> Result<Vec<u8>> {
    let file_bytes = source.len_bytes();
    if file_bytes < LENGTH_BYTES {
        return Err(invalid(source, too_short(file_bytes)));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    read_exact(source, &mut length, 0)?;
    let header_bytes = checked_length(length, file_bytes).map_err(|fact| invalid(source, fact))?;
    let mut text = Vec::new();
    text.try_reserve_exact(header_bytes).map_err(|cause| {
        let location = source.location();
        let doing = format!("cannot allocate {header_bytes} bytes for the header of {location}");
        Error::new(ErrorKind::OutOfMemory, doing).with_source(cause)
    })?;
    text.resize(header_bytes, 0);
    read_exact(source, &mut text, LENGTH_BYTES)?;
    Ok(text)
}

fn read_exact(source: &dyn Source, into: &mut [u8], offset: u64) -> Result<()> {
    source.read_exact_at(into, offset).map_err(|cause| {
        let location = source.location();
        if cause.kind() == io::ErrorKind::UnexpectedEof {
            let fact = format!("{location}: the file became shorter while its header was read");
            return Error::new(ErrorKind::Changed, fact).with_source(cause);
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
        Bytes(file_bytes)
    )
}

/// The length of the header in a file of `file_bytes` that begins with `length`.
fn checked_length(length: [u8; 8], file_bytes: u64) -> Fact<usize> {
    let header_bytes = u64::from_le_bytes(length);
    let remaining_bytes = file_bytes.saturating_sub(LENGTH_BYTES);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(format!(
            "the first 8 bytes give a header of {header_bytes} bytes, above the limit of \
             {MAX_HEADER_BYTES}; {}",
            kind_of_file(length)
        ));
    }
    if header_bytes > remaining_bytes {
        return Err(format!(
            "the first 8 bytes give a header of {}, but {remaining_bytes} follow; the file is \
             truncated or not a safetensors file",
            Bytes(header_bytes)
        ));
    }
    // Below 2^32, so it fits.
    Ok(header_bytes as usize)
}

/// What a file that begins with `bytes`, and is not a safetensors file, may be.
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
        [b'<', ..] => "it looks like a web page, not a safetensors file",
        _ => "it is not a safetensors file",
    }
}

/// The checked header `text` of a file with `data_bytes` behind it, tensors by offset.
fn parse(text: &[u8], data_bytes: u64) -> Fact<json::Header> {
    let text = std::str::from_utf8(text).map_err(|error| {
        format!("the header is not UTF-8 at byte {} of the header", error.valid_up_to())
    })?;
    check_start(text)?;
    let mut header =
        json::parse_header(text).map_err(|error| format!("the header is invalid: {error}"))?;
    header.tensors.sort_by_key(|entry| entry.data_offsets);
    match check_layout(&header.tensors, data_bytes) {
        Ok(()) => Ok(header),
        // A name that stands twice explains more than the overlap that comes of it.
        Err(fact) => Err(find_twin(&header.tensors).map_or(fact, stands_twice)),
    }
}

fn check_start(text: &str) -> Fact<()> {
    match text.chars().next() {
        Some('{') => Ok(()),
        Some(other) => Err(format!("the header begins with {other:?} instead of '{{'")),
        None => Err("the header is empty; the least there can be is {}".into()),
    }
}

/// A name that stands twice among `tensors`.
fn find_twin(tensors: &[Entry]) -> Option<&str> {
    let keys = NameKeys::default();
    let hashes: Vec<_> = tensors.iter().map(|entry| keys.hash(&entry.name)).collect();
    let table = NameTable::build(keys, &hashes, |position| &tensors[position].name);
    table.err().map(|(_, twin)| &*tensors[twin].name)
}

/// The fact that the tensor `name` stands twice in one header.
pub(super) fn stands_twice(name: &str) -> String {
    format!("tensor {} stands twice in the header", Quoted(name))
}

/// Checks that `tensors`, sorted by offset, fill `data_bytes` with neither hole nor overlap.
fn check_layout(tensors: &[Entry], data_bytes: u64) -> Fact<()> {
    let mut end_of_last = 0;
    for (i, entry) in tensors.iter().enumerate() {
        check_place(entry, i.checked_sub(1).map(|last| &tensors[last]))?;
        check_size(entry)?;
        end_of_last = entry.data_offsets[1];
    }
    if end_of_last > data_bytes {
        return Err(format!(
            "the file is truncated: the header describes {} of tensor data, the file has \
             {data_bytes}: {} missing; was its download finished?",
            Bytes(end_of_last),
            Count(end_of_last - data_bytes)
        ));
    }
    if end_of_last < data_bytes {
        return Err(format!(
            "the header describes {} of tensor data, the file has {data_bytes}: {} too many",
            Bytes(end_of_last),
            Count(data_bytes - end_of_last)
        ));
    }
    Ok(())
}

/// Checks that `entry` begins where the one before it ends.
fn check_place(entry: &Entry, before: Option<&Entry>) -> Fact<()> {
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
        Some(Entry { data_offsets: [_, expected], .. }) if begin == *expected => Ok(()),
        Some(Entry { name: before, data_offsets: [_, expected], .. }) => Err(format!(
            "tensor {name} begins at byte {begin} of the data, but tensor {} before it ends at \
             {expected}: {}",
            Quoted(before),
            if begin < *expected { "they overlap" } else { "there is a hole" }
        )),
    }
}

/// Checks that shape and type of `entry` take the bytes that its offsets give.
fn check_size(entry: &Entry) -> Fact<()> {
    let [begin, end] = entry.data_offsets;
    let of_shape = match dtype::len_bytes(entry.dtype, &entry.shape) {
        Ok(len_bytes) if len_bytes == end - begin => return Ok(()),
        Ok(len_bytes) => format!(
            "which is {}, but data_offsets [{begin}, {end}] give {}",
            Bytes(len_bytes),
            end - begin
        ),
        Err(dtype::NoSize::Overflow) => "whose size does not fit 64 bits".into(),
        Err(dtype::NoSize::PartOfByte(bits)) => {
            format!("which is {bits} bits, not a whole number of bytes")
        }
    };
    let (name, shape) = (Quoted(&entry.name), Shape(&entry.shape));
    Err(format!("tensor {name} has shape {shape} of {}, {of_shape}", entry.dtype))
}

/// `"1 is"`, `"2 are"`.
struct Count(u64);

impl Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "is" } else { "are" })
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "header_agreement.rs"]
mod agreement;
