//! The index of a sharded checkpoint, which names the file of each tensor.
//!
//! ```text
//! {"metadata": {...}, "weight_map": {"tensor": "model-00001-of-00002.safetensors", ...}}
//! ```
//!
//! An index lists the shards of a checkpoint, and decides which of two shards a tensor is taken from
//! that both have. A tensor that is in a shard but not in the index is loaded too. A tensor of the
//! index that its shard lacks is taken from another shard that has it, or else reported as missing;
//! with `strict`, both are errors. `metadata` (a `total_size` that is often wrong) and other fields
//! are not used.
//!
//! File names are relative to the directory of the index and must stay below it: they are neither
//! absolute nor contain `..`.

use super::json::{self, WeightMap};
use super::parallel;
use super::shard::Shard;
use super::tensor_table::TensorTable;
use super::text::{Quoted, Shortened, first_repeated};
use crate::error::{Error, ErrorKind, Result, Size, option};
use crate::location::Location;
use crate::source::{Cancellation, Opener, Source};
use crate::sys::read_regular;
use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

/// The maximum length of an index in bytes. A million tensors take about 100 MB.
const MAX_BYTES: u64 = 1 << 30;

/// The bytes of an index object that are read at a time. The first read is shorter: its bytes arrive
/// with the response that opens the object.
const PIECE_BYTES: usize = 8 << 20;
const FIRST_PIECE_BYTES: usize = 64 << 10;

/// The number of tensors of an index that a thread checks at a time.
const CHUNK_TENSORS: usize = 1 << 13;

/// An index file.
pub(super) struct Index {
    pub(super) location: Location,
    weight_map: WeightMap,
}

/// A tensor of an index that is not in the shard that the index says.
pub(super) struct Difference<'a> {
    pub(super) name: &'a str,
    /// The position in the index of the shard that the index says.
    shard: usize,
    /// The shard that has the tensor; `None` if no shard has it.
    pub(super) found: Option<Location>,
}

impl Index {
    /// Reads the index at `location`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint) if it is not an index or names a file that
    /// is not below its directory; the errors of opening and reading it.
    pub(super) fn read(opener: &Opener, location: Location) -> Result<Index> {
        let text = match &location {
            Location::File(path) => read_regular(path, "index", MAX_BYTES)?,
            // Opened without verification: stores keep checksums only of large files, and the index
            // is checked against the shards.
            Location::Object(uri) => {
                read_object(&*opener.open_object(uri, false)?, opener.cancellation())?
            }
        };
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            invalid(&location, format_args!("the index is not UTF-8 at byte {at}"))
        })?;
        let weight_map = json::parse_index(&text).map_err(|error| {
            invalid(&location, format_args!("the index is invalid: {}", Shortened(error)))
        })?;
        let index = Index { location, weight_map };
        index.check_file_names()?;
        Ok(index)
    }

    /// Returns the files of the shards, sorted by path, each with its position in the index.
    pub(super) fn files(&self) -> Vec<(Location, usize)> {
        let names = self.weight_map.shards.iter().enumerate();
        // Paths compare by component and ignore `.` components.
        let mut files: Vec<_> =
            names.map(|(shard, name)| (Path::new("/").join(&**name), shard)).collect();
        files.sort();
        files.into_iter().map(|(name, shard)| (self.shard_location(&name, shard), shard)).collect()
    }

    /// The location of `shard`. `rooted` is its path with the directory of the index as the root.
    fn shard_location(&self, rooted: &Path, shard: usize) -> Location {
        match &self.location {
            Location::File(path) => {
                let directory = path.parent().unwrap_or(Path::new(""));
                directory.join(&*self.weight_map.shards[shard]).into()
            }
            Location::Object(uri) => {
                let parts = rooted.components().filter_map(|part| match part {
                    Component::Normal(part) => part.to_str(),
                    _ => None,
                });
                Location::Object(uri.join(&parts.collect::<Vec<_>>().join("/")))
            }
        }
    }

    /// The error if the file of `shard` (a position in the index) does not exist.
    pub(super) fn missing(&self, shard: usize, cause: Error) -> Error {
        let sentence = format!(
            "{} names the shard {}, which does not exist; tensor {} should be in it; download it, \
             or name the files to load instead of the index",
            self.location,
            Quoted(&self.weight_map.shards[shard]),
            self.first_tensor_of(shard),
        );
        let error = Error::new(ErrorKind::NotFound, sentence);
        match &self.location {
            // The cause would say once more that there is no such file.
            Location::File(_) => error,
            Location::Object(_) => error.with_source(cause),
        }
    }

    /// The error if the file of `shard` (a position in the index) is no regular file, as `cause` says.
    pub(super) fn not_regular(&self, shard: usize, cause: Error) -> Error {
        let sentence = format!(
            "{} names the shard {} for tensor {}, and this shard is no regular file; put the file \
             there, or name the files to load instead of the index",
            self.location,
            Quoted(&self.weight_map.shards[shard]),
            self.first_tensor_of(shard),
        );
        Error::new(cause.kind(), sentence).with_source(cause)
    }

    /// Whether the index names no tensor.
    pub(super) fn is_empty(&self) -> bool {
        self.weight_map.tensors.is_empty()
    }

    /// The tensors of the index, each with the position of its shard in the index.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, usize)> {
        self.weight_map.tensors.iter().map(|(name, shard)| (&**name, *shard as usize))
    }

    /// Compares the index with the shards. Returns the differences.
    ///
    /// `numbers` holds, for each position in the index, the index of the shard in `shards`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint), naming the index and the tensor, if the
    /// index names a tensor twice.
    pub(super) fn compare(
        &self,
        tensors: &TensorTable,
        shards: &[Shard],
        numbers: &[usize],
    ) -> Result<Vec<Difference<'_>>> {
        let seen: Vec<_> = tensors.all().iter().map(|_| AtomicBool::new(false)).collect();
        let chunks: Vec<_> = self.weight_map.tensors.chunks(CHUNK_TENSORS).collect();
        let threads = parallel::computing_threads(chunks.len());
        let compared = parallel::try_map(chunks.len(), threads, |chunk| {
            let (mut distinct, mut differences) = (0, Vec::new());
            for (name, shard) in chunks[chunk] {
                let found = tensors.position(name);
                distinct += found.map_or(0, |position| {
                    usize::from(!seen[position].swap(true, Ordering::Relaxed))
                });
                let found = found.map(|position| tensors.all()[position].shard());
                if found != Some(numbers[*shard as usize]) {
                    let found = found.map(|shard| shards[shard].location().clone());
                    differences.push(Difference { name, shard: *shard as usize, found });
                }
            }
            Ok((distinct, differences))
        })?;
        let mut distinct = 0;
        let mut differences = Vec::new();
        for (of_chunk, mut more) in compared {
            distinct += of_chunk;
            differences.append(&mut more);
        }
        let missing = differences.iter().filter(|difference| difference.found.is_none());
        distinct += missing.map(|difference| difference.name).collect::<HashSet<_>>().len();
        if distinct == self.weight_map.tensors.len() {
            return Ok(differences);
        }
        let names = self.weight_map.tensors.iter().map(|(name, _)| &**name);
        let repeated = Quoted(first_repeated(names).unwrap_or_default());
        Err(invalid(&self.location, format_args!("the index names tensor {repeated} twice")))
    }

    /// The error for a difference that is not accepted.
    pub(super) fn refuse(&self, difference: &Difference<'_>) -> Error {
        let reason = match &difference.found {
            None => "which does not contain it".to_owned(),
            Some(location) => format!("but it is in {location}"),
        };
        self.not_in(difference.name, difference.shard, reason)
    }

    fn not_in(&self, name: &str, shard: usize, reason: impl Display) -> Error {
        let (name, shard) = (Quoted(name), Quoted(&self.weight_map.shards[shard]));
        let sentence = format!(
            "{}: the index says that tensor {name} is in the shard {shard}, {reason}; load it \
             without {} to go by what the shards hold",
            self.location,
            option("strict").on()
        );
        Error::new(ErrorKind::InvalidCheckpoint, sentence)
    }

    fn check_file_names(&self) -> Result<()> {
        for (shard, name) in self.weight_map.shards.iter().enumerate() {
            if let Err(reason) = check_file_name(name) {
                let (name, tensor) = (Quoted(name), self.first_tensor_of(shard));
                return Err(invalid(
                    &self.location,
                    format_args!("the index gives tensor {tensor} the file {name}, which {reason}"),
                ));
            }
        }
        Ok(())
    }

    /// The first tensor of `shard` in the index, quoted.
    fn first_tensor_of(&self, shard: usize) -> Quoted<'_> {
        let mut tensors = self.weight_map.tensors.iter();
        // Every shard was named by a tensor, so there is one.
        let first = tensors.find(|(_, of_tensor)| *of_tensor as usize == shard);
        Quoted(first.map_or("", |(name, _)| name))
    }
}

fn invalid(location: &Location, reason: impl Display) -> Error {
    let sentence =
        format!("{location}: {reason}; download the index again, or name its shards instead of it");
    Error::new(ErrorKind::InvalidCheckpoint, sentence)
}

/// Reads an index object. Memory grows with the bytes received, whatever length the server reports.
fn read_object(source: &dyn Source, cancellation: &Cancellation) -> Result<Vec<u8>> {
    let location = source.location();
    if source.len_bytes() > MAX_BYTES {
        return Err(too_long(location));
    }
    // At most 2^30, as just checked.
    let len_bytes = source.len_bytes() as usize;
    let fail = |cause| Error::from_io(format_args!("read the index {location}"), cause);
    let mut text = Vec::new();
    let mut piece_bytes = FIRST_PIECE_BYTES;
    while text.len() < len_bytes {
        let read_bytes = text.len();
        let piece = piece_bytes.min(len_bytes - read_bytes);
        text.try_reserve(piece).map_err(|cause| fail(cause.into()))?;
        text.resize(read_bytes + piece, 0);
        let into = &mut text[read_bytes..];
        source.read_exact_at(into, read_bytes as u64, cancellation).map_err(fail)?;
        piece_bytes = PIECE_BYTES;
    }
    Ok(text)
}

fn too_long(location: &Location) -> Error {
    invalid(location, format_args!("the index is longer than {}", Size(MAX_BYTES)))
}

/// Checks `name` as the file name of a shard. The error says what is wrong with it.
fn check_file_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.contains('\0') {
        return Err("contains a zero byte");
    }
    let mut is_file = false;
    for component in Path::new(name).components() {
        match component {
            Component::Normal(_) => is_file = true,
            Component::CurDir => {}
            Component::ParentDir => return Err("leaves the directory of the index with \"..\""),
            Component::RootDir | Component::Prefix(_) => {
                return Err("is absolute; it must be relative to the directory of the index");
            }
        }
    }
    if is_file { Ok(()) } else { Err("is the directory of the index") }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "index_fuzz_tests.rs"]
mod fuzz;
