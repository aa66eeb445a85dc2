//! The text of a manifest: JSON, one line per tensor.
//!
//! The format is described in `docs/manifests.md`. A reader refuses fields that it does not know: a
//! manifest with other fields has another version. Nothing in the text is trusted: sizes are bounded,
//! tensors lie within their file and do not overlap, and names occur once.

use super::file_sums::{FileSums, TensorSum};
use crate::checksum::{crc64_nvme_of_parts, hex};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;

/// The value of `format`.
const FORMAT: &str = "ringload-manifest";

/// The version of the format.
const VERSION: u32 = 1;

/// The maximum number of files, as of an index.
const FILES_MAX: usize = 50_000;

#[derive(Deserialize)]
#[serde(expecting = "a JSON object with format, version and files")]
struct Head {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
struct Document {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    files: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the JSON object of a file")]
struct FileEntry {
    name: String,
    bytes: u64,
    crc64nvme: Digits<8>,
    sha256: Option<Digits<32>>,
    header: HeaderEntry,
    tensors: Vec<TensorEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the JSON object of a header")]
struct HeaderEntry {
    bytes: u64,
    crc64nvme: Digits<8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the JSON object of a tensor")]
struct TensorEntry {
    name: Box<str>,
    offset: u64,
    bytes: u64,
    crc64nvme: Digits<8>,
}

/// A checksum of `N` bytes, as twice as many hexadecimal digits.
struct Digits<const N: usize>([u8; N]);

impl Digits<8> {
    fn crc(&self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Digits<N> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct DigitsVisitor<const N: usize>;

        impl<const N: usize> Visitor<'_> for DigitsVisitor<N> {
            type Value = Digits<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} hexadecimal digits", 2 * N)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digits<N>, E> {
                let bytes = hex::decode(text.as_bytes());
                bytes.map(Digits).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        json.deserialize_str(DigitsVisitor)
    }
}

/// Parses the text of a manifest.
///
/// # Errors
/// A description of the first fault.
pub(super) fn parse(text: &[u8]) -> Result<Vec<FileSums>, String> {
    let head: Head = serde_json::from_slice(text)
        .map_err(|why| format!("it is not a manifest of ringload ({why})"))?;
    if head.format != FORMAT {
        return Err(format!("its format is {:?} and not {FORMAT:?}", head.format));
    }
    if head.version != VERSION {
        let version = head.version;
        return Err(format!("its version is {version}, and this ringload knows {VERSION}"));
    }
    let document: Document = serde_json::from_slice(text).map_err(|why| why.to_string())?;
    if document.files.len() > FILES_MAX {
        return Err(format!("it has more than {FILES_MAX} files"));
    }
    let mut names = HashSet::new();
    if let Some(twice) = document.files.iter().find(|file| !names.insert(&file.name)) {
        return Err(format!("the file {:?} occurs twice", twice.name));
    }
    document.files.into_iter().map(FileEntry::checked).collect()
}

impl FileEntry {
    /// The sums of this file, if they agree with each other.
    fn checked(self) -> Result<FileSums, String> {
        let tensors = self.tensors.into_iter().map(|tensor| TensorSum {
            crc: tensor.crc64nvme.crc(),
            name: tensor.name,
            offset: tensor.offset,
            bytes: tensor.bytes,
        });
        let file = FileSums {
            name: self.name,
            bytes: self.bytes,
            sha256: self.sha256.map(|digits| digits.0),
            header_bytes: self.header.bytes,
            header_crc: self.header.crc64nvme.crc(),
            tensors: tensors.collect(),
            crc: self.crc64nvme.crc(),
        };
        check(&file).map_err(|why| format!("the file {:?}: {why}", file.name))?;
        Ok(file)
    }
}

/// Checks that the parts of `file` are in ascending order, do not overlap and are within it; and where
/// they are all of it, that its checksum is theirs.
fn check(file: &FileSums) -> Result<(), String> {
    if file.name.is_empty() {
        return Err("its name is empty".to_owned());
    }
    let mut names = HashSet::with_capacity(file.tensors.len());
    let (mut end, mut covered) = (file.header_bytes, file.header_bytes);
    for TensorSum { name, offset, bytes, crc } in &file.tensors {
        if !names.insert(name) {
            return Err(format!("the tensor {name:?} occurs twice"));
        }
        if *bytes == 0 && *crc != 0 {
            return Err(format!("the tensor {name:?} has no bytes, and a checksum that is not 0"));
        }
        if *offset < end {
            return Err(format!("the tensor {name:?} overlaps what is before it"));
        }
        end =
            offset.checked_add(*bytes).ok_or_else(|| format!("the tensor {name:?} is too long"))?;
        covered += bytes;
    }
    if end > file.bytes {
        return Err(format!("its parts end at byte {end}, and it has {} bytes", file.bytes));
    }
    let parts = file.tensors.iter().map(|tensor| (tensor.crc, tensor.bytes));
    let parts = std::iter::once((file.header_crc, file.header_bytes)).chain(parts);
    if covered == file.bytes && crc64_nvme_of_parts(parts) != file.crc {
        return Err("its checksum is not that of its parts".to_owned());
    }
    Ok(())
}

/// Writes `files` as JSON: the keys in a fixed order, and a line for each tensor.
pub(super) fn write(f: &mut fmt::Formatter<'_>, files: &[FileSums]) -> fmt::Result {
    write!(f, "{{\n\"format\": {}, \"version\": {VERSION},\n\"files\": [", json(FORMAT))?;
    for (number, file) in files.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        write!(f, "{comma}\n{{\"name\": {}, \"bytes\": {}", json(&file.name), file.bytes)?;
        write!(f, ", \"crc64nvme\": \"{:016x}\"", file.crc)?;
        if let Some(digest) = &file.sha256 {
            write!(f, ", \"sha256\": \"{}\"", hex::encode(digest))?;
        }
        let (bytes, crc) = (file.header_bytes, file.header_crc);
        write!(f, ",\n\"header\": {{\"bytes\": {bytes}, \"crc64nvme\": \"{crc:016x}\"}}")?;
        f.write_str(",\n\"tensors\": [")?;
        for (number, TensorSum { name, offset, bytes, crc }) in file.tensors.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}\n{{\"name\": {}, \"offset\": {offset}", json(name))?;
            write!(f, ", \"bytes\": {bytes}, \"crc64nvme\": \"{crc:016x}\"}}")?;
        }
        f.write_str("]}")?;
    }
    f.write_str("\n]}\n")
}

/// A string as JSON.
fn json(text: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(text).unwrap_or_default() // strings can be written
}
