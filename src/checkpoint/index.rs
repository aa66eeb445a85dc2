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
use std::collections::HashSet;
use std::fmt::Display;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// How the name of an index ends.
pub(super) const SUFFIX: &str = ".safetensors.index.json";

/// The longest index, in bytes. A million tensors take about 100 MB.
const MAX_BYTES: u64 = 1 << 30;

/// How many tensors of an index a thread checks at a time.
const CHUNK_TENSORS: usize = 1 << 13;

/// An index file.
pub(super) struct Index {
    path: PathBuf,
    weight_map: WeightMap,
}

impl Index {
    /// Reads the index at `path`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint) where it is no index or names a file
    /// that is not below its directory; else those of opening and reading it.
    pub(super) fn read(path: &Path) -> Result<Index> {
        let text = read_text(path)?;
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            invalid(path, format_args!("the index is not UTF-8 at byte {at}"))
        })?;
        let weight_map = json::parse_index(&text)
            .map_err(|error| invalid(path, format_args!("the index is invalid: {error}")))?;
        let index = Index { path: path.to_path_buf(), weight_map };
        index.check_file_names()?;
        Ok(index)
    }

    /// The files of the shards, sorted by path, each with its position in the index.
    pub(super) fn files(&self) -> Vec<(PathBuf, usize)> {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let names = self.weight_map.shards.iter().enumerate();
        let mut files: Vec<_> =
            names.map(|(shard, name)| (directory.join(&**name), shard)).collect();
        files.sort();
        files
    }

    /// The error for the file of `shard` (a position in the index) not being there.
    pub(super) fn missing(&self, shard: usize, cause: Error) -> Error {
        let sentence = format!(
            "{} names the shard {}, which does not exist; tensor {} should be in it; download it, \
             or name the files to load instead of the index",
            self.path.display(),
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
        let distinct = parallel::try_map(chunks.len(), |chunk| {
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
        Err(invalid(&self.path, format_args!("the index names tensor {twin} twice")))
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
            &self.path,
            format_args!("the index says that tensor {name} is in the shard {shard}, {fact}"),
        )
    }

    fn check_file_names(&self) -> Result<()> {
        for (shard, name) in self.weight_map.shards.iter().enumerate() {
            if let Err(fact) = check_file_name(name) {
                let (name, tensor) = (Quoted(name), self.first_tensor_of(shard));
                let fact = format!("the index gives tensor {tensor} the file {name}, which {fact}");
                return Err(invalid(&self.path, fact));
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

fn invalid(path: &Path, fact: impl Display) -> Error {
    Error::new(ErrorKind::InvalidCheckpoint, format!("{}: {fact}", path.display()))
}

/// The bytes of the index, at most [`MAX_BYTES`].
fn read_text(path: &Path) -> Result<Vec<u8>> {
    let fail = |cause| Error::from_io(format_args!("read the index {}", path.display()), cause);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = Vec::new();
    let hint_bytes = file.metadata().map_err(fail)?.len().min(MAX_BYTES) + 1;
    text.try_reserve_exact(hint_bytes as usize).map_err(|cause| fail(cause.into()))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(invalid(path, format_args!("the index is longer than {MAX_BYTES} bytes")));
    }
    Ok(text)
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
