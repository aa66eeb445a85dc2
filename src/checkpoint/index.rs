//! The index of a sharded checkpoint, which names the file of each tensor.
//!
//! ```text
//! {"metadata": {...}, "weight_map": {"tensor": "model-00001-of-00002.safetensors", ...}}
//! ```
//!
//! An index lists the shards of a checkpoint. It also serves as a check: every tensor of the index
//! must be in the shard that the index says. A tensor that is in a shard but not in the index is
//! loaded too. `metadata` (a `total_size` that is often wrong) and other fields are not used.
//!
//! File names are relative to the directory of the index and must stay below it: they are neither
//! absolute nor contain `..`.

use super::json::{self, WeightMap};
use super::parallel;
use super::shard::Shard;
use super::tensor_table::TensorTable;
use super::text::{Quoted, first_repeated};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::cores;
use crate::source::{Opener, Source};
use std::fmt::Display;
use std::io::Read;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

/// The suffix of the name of an index.
pub(super) const SUFFIX: &str = ".safetensors.index.json";

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

impl Index {
    /// Reads the index at `location`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint) if it is not an index or names a file that
    /// is not below its directory; the errors of opening and reading it.
    pub(super) fn read(opener: &Opener, location: Location) -> Result<Index> {
        let text = match &location {
            Location::File(path) => read_file(path)?,
            // Opened without verification: stores keep checksums only of large files, and the index
            // is checked against the shards.
            Location::Object(uri) => read_object(&*opener.open_object(uri, false)?)?,
        };
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            invalid(&location, format_args!("the index is not UTF-8 at byte {at}"))
        })?;
        let weight_map = json::parse_index(&text)
            .map_err(|error| invalid(&location, format_args!("the index is invalid: {error}")))?;
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
        Error::new(ErrorKind::NotFound, sentence).with_source(cause)
    }

    /// Checks that each tensor of the index is in the shard that the index says.
    ///
    /// `numbers` holds, for each position in the index, the index of the shard in `shards`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint), naming the index, the tensor and its shard,
    /// for the first tensor that is not in its shard.
    pub(super) fn check(
        &self,
        tensors: &TensorTable,
        shards: &[Shard],
        numbers: &[usize],
    ) -> Result<()> {
        let seen: Vec<_> = tensors.all().iter().map(|_| AtomicBool::new(false)).collect();
        let chunks: Vec<_> = self.weight_map.tensors.chunks(CHUNK_TENSORS).collect();
        let distinct = parallel::try_map(chunks.len(), cores(), |chunk| {
            let mut distinct = 0;
            for (name, shard) in chunks[chunk] {
                let position = self.find(tensors, shards, numbers, (name, *shard as usize))?;
                distinct += usize::from(!seen[position].swap(true, Ordering::Relaxed));
            }
            Ok(distinct)
        })?;
        if distinct.into_iter().sum::<usize>() == self.weight_map.tensors.len() {
            return Ok(());
        }
        let names = self.weight_map.tensors.iter().map(|(name, _)| &**name);
        let repeated = Quoted(first_repeated(names).unwrap_or_default());
        Err(invalid(&self.location, format_args!("the index names tensor {repeated} twice")))
    }

    /// Returns the position in `tensors` of the tensor `name`, which must be in `shard`.
    fn find(
        &self,
        tensors: &TensorTable,
        shards: &[Shard],
        numbers: &[usize],
        (name, shard): (&str, usize),
    ) -> Result<usize> {
        let position = tensors
            .position(name)
            .ok_or_else(|| self.not_in(name, shard, "which does not contain it"))?;
        let found = tensors.all()[position].shard();
        if found == numbers[shard] {
            return Ok(position);
        }
        let location = shards[found].location();
        Err(self.not_in(name, shard, format_args!("but it is in {location}")))
    }

    fn not_in(&self, name: &str, shard: usize, reason: impl Display) -> Error {
        let (name, shard) = (Quoted(name), Quoted(&self.weight_map.shards[shard]));
        invalid(
            &self.location,
            format_args!("the index says that tensor {name} is in the shard {shard}, {reason}"),
        )
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
    Error::new(ErrorKind::InvalidCheckpoint, format!("{location}: {reason}"))
}

/// Reads an index file of at most [`MAX_BYTES`] bytes.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let fail = |cause| Error::from_io(format_args!("read the index {}", path.display()), cause);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = Vec::new();
    let hint_bytes = file.metadata().map_err(fail)?.len().min(MAX_BYTES) + 1;
    text.try_reserve_exact(hint_bytes as usize).map_err(|cause| fail(cause.into()))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(too_long(&path.into()));
    }
    Ok(text)
}

/// Reads an index object. Memory grows with the bytes received, whatever length the server reports.
fn read_object(source: &dyn Source) -> Result<Vec<u8>> {
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
        source.read_exact_at(&mut text[read_bytes..], read_bytes as u64).map_err(fail)?;
        piece_bytes = PIECE_BYTES;
    }
    Ok(text)
}

fn too_long(location: &Location) -> Error {
    invalid(location, format_args!("the index is longer than {MAX_BYTES} bytes"))
}

/// Checks `name` as the file name of a shard. The error says what is wrong with it.
fn check_file_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.contains('\0') {
        return Err("contains a zero byte");
    }
    for component in Path::new(name).components() {
        match component {
            Component::Normal(_) | Component::CurDir => {}
            Component::ParentDir => return Err("leaves the directory of the index with \"..\""),
            Component::RootDir | Component::Prefix(_) => {
                return Err("is absolute; it must be relative to the directory of the index");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
