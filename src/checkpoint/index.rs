//! The index of a sharded checkpoint: which file each tensor is in.
//!
//! ```text
//! {"metadata": {...}, "weight_map": {"tensor": "model-00001-of-00002.safetensors", ...}}
//! ```
//!
//! An index says which shards there are and is a cross-check of what they hold: every tensor it
//! names must be in the shard it says. What is loaded is what the shards hold, so a tensor of a
//! shard that the index does not name is loaded too. `metadata` (a `total_size` that is often
//! wrong) and other fields are not used.
//!
//! File names are relative to the index's directory and stay below it: no absolute path, no `..`.

use super::json::{self, WeightMap};
use super::text::Quoted;
use super::{Checkpoint, TensorInfo, parallel};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::cores;
use crate::source::{Opener, Source};
use std::collections::HashSet;
use std::fmt::Display;
use std::io::Read;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

/// How the name of an index ends.
pub(super) const SUFFIX: &str = ".safetensors.index.json";

/// The longest index, in bytes. A million tensors take about 100 MB.
const MAX_BYTES: u64 = 1 << 30;

/// How much of an index is fetched at a time; less, first: what opening an object brings along.
const PIECE_BYTES: usize = 8 << 20;
const FIRST_PIECE_BYTES: usize = 64 << 10;

/// How many tensors of an index a thread checks at a time.
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
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint) where it is no index or names a file
    /// that is not below its directory; else those of opening and reading it.
    pub(super) fn read(opener: &Opener, location: Location) -> Result<Index> {
        let text = match &location {
            Location::File(path) => read_file(path)?,
            // Not verified: stores keep checksums of large files only, and what an index says is
            // checked against the shards.
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

    /// The files of the shards, sorted by path, each with its position in the index.
    pub(super) fn files(&self) -> Vec<(Location, usize)> {
        let names = self.weight_map.shards.iter().enumerate();
        // Where the parts between slashes are what is compared, without those that mean nothing.
        let mut files: Vec<_> =
            names.map(|(shard, name)| (Path::new("/").join(&**name), shard)).collect();
        files.sort();
        files.into_iter().map(|(name, shard)| (self.beside(&name, shard), shard)).collect()
    }

    /// Where `shard` is, whose plain name below the directory of the index is `rooted`.
    fn beside(&self, rooted: &Path, shard: usize) -> Location {
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

    /// The error for the file of `shard` (a position in the index) not being there.
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
    /// `shards` holds, for each position in the index, the number of the shard in `checkpoint`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint), naming the tensor, its shard and the
    /// index, for the first tensor of the index of which it is not so.
    pub(super) fn check(&self, checkpoint: &Checkpoint, shards: &[usize]) -> Result<()> {
        let seen: Vec<_> = checkpoint.tensors().iter().map(|_| AtomicBool::new(false)).collect();
        let chunks: Vec<_> = self.weight_map.tensors.chunks(CHUNK_TENSORS).collect();
        let distinct = parallel::try_map(chunks.len(), cores(), |chunk| {
            let mut distinct = 0;
            for (name, shard) in chunks[chunk] {
                let position = self.find(checkpoint, shards, name, *shard as usize)?;
                distinct += usize::from(!seen[position].swap(true, Ordering::Relaxed));
            }
            Ok(distinct)
        })?;
        if distinct.into_iter().sum::<usize>() == self.weight_map.tensors.len() {
            return Ok(());
        }
        let twin = Quoted(self.find_twin());
        Err(invalid(&self.location, format_args!("the index names tensor {twin} twice")))
    }

    /// The position in `checkpoint` of the tensor `name`, which must be in `shard`.
    fn find(
        &self,
        checkpoint: &Checkpoint,
        shards: &[usize],
        name: &str,
        shard: usize,
    ) -> Result<usize> {
        let position = checkpoint
            .position(name)
            .ok_or_else(|| self.not_in(name, shard, "which does not hold it"))?;
        let tensor = &checkpoint.tensors()[position];
        if tensor.shard() == shards[shard] {
            Ok(position)
        } else {
            Err(self.elsewhere(name, shard, tensor, checkpoint))
        }
    }

    /// The first name that the index has a second time; empty if there is none.
    fn find_twin(&self) -> &str {
        let mut seen = HashSet::new();
        let mut names = self.weight_map.tensors.iter().map(|(name, _)| &**name);
        names.find(|name| !seen.insert(*name)).unwrap_or_default()
    }

    fn elsewhere(
        &self,
        name: &str,
        shard: usize,
        tensor: &TensorInfo,
        checkpoint: &Checkpoint,
    ) -> Error {
        let location = checkpoint.shards()[tensor.shard()].location();
        self.not_in(name, shard, format_args!("but it is in {location}"))
    }

    fn not_in(&self, name: &str, shard: usize, fact: impl Display) -> Error {
        let (name, shard) = (Quoted(name), Quoted(&self.weight_map.shards[shard]));
        invalid(
            &self.location,
            format_args!("the index says that tensor {name} is in the shard {shard}, {fact}"),
        )
    }

    fn check_file_names(&self) -> Result<()> {
        for (shard, name) in self.weight_map.shards.iter().enumerate() {
            if let Err(fact) = check_file_name(name) {
                let (name, tensor) = (Quoted(name), self.first_tensor_of(shard));
                let fact = format!("the index gives tensor {tensor} the file {name}, which {fact}");
                return Err(invalid(&self.location, fact));
            }
        }
        Ok(())
    }

    /// The first tensor that the index puts into `shard`, quoted.
    fn first_tensor_of(&self, shard: usize) -> Quoted<'_> {
        let mut tensors = self.weight_map.tensors.iter();
        // Every shard comes from a tensor, so one is found.
        let first = tensors.find(|(_, of_tensor)| *of_tensor as usize == shard);
        Quoted(first.map_or("", |(name, _)| name))
    }
}

fn invalid(location: &Location, fact: impl Display) -> Error {
    Error::new(ErrorKind::InvalidCheckpoint, format!("{location}: {fact}"))
}

/// The bytes of the index, at most [`MAX_BYTES`].
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

/// The text of an index that is an object. Memory grows as the text comes, whatever its server says
/// of its length.
fn read_object(source: &dyn Source) -> Result<Vec<u8>> {
    let location = source.location();
    if source.len_bytes() > MAX_BYTES {
        return Err(too_long(location));
    }
    // Below 2^30, as just seen.
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

/// What is wrong with `name` as the file of a shard, if anything.
fn check_file_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.contains('\0') {
        return Err("holds a zero byte");
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
