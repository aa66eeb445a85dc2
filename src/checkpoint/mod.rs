//! A checkpoint: its shards and, of each tensor, name, type, shape and place.
//!
//! ```text
//! locations --resolve--> files, indexes --header (in parallel)--> shards, tensors
//!                             |                                        |
//!                             +------ index: is each tensor where it should be?
//! ```
//!
//! Opening reads headers only, on as many threads as there are CPUs, or more where they wait for
//! servers. Shards are handed to threads
//! in order, and what goes wrong first *in that order* is what is reported, so results and errors
//! do not depend on timing. Nothing of a file is trusted (see `header.rs`); memory is linear in the
//! headers: about 100 bytes a tensor and its name.

mod dtype;
mod header;
mod index;
mod json;
mod names;
pub(crate) mod parallel;
mod resolve;
mod text;

pub use dtype::Dtype;

use crate::error::{Error, ErrorKind, Result};
use crate::location::{IntoLocations, Location};
use crate::options::cores;
use crate::source::{Opener, Source};
use header::Header;
use names::{MAX_TENSORS, NameKeys, NameTable};
use resolve::ShardFile;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use text::Quoted;

/// What the header says about one tensor, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    name: Box<str>,
    shape: Box<[usize]>,
    offset_bytes: u64,
    len_bytes: u64,
    shard: u32,
    dtype: Dtype,
}

impl TensorInfo {
    /// Its name, which no other tensor of the checkpoint has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its dimensions, slowest first; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its shard's position in [`Checkpoint::shards`].
    pub fn shard(&self) -> usize {
        self.shard as usize
    }

    /// Where it begins, in bytes from the beginning of the shard's file.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Its length in bytes: what its shape and type take; 0 where a dimension is 0.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

/// One file of a checkpoint.
#[derive(Clone)]
pub struct Shard {
    source: Arc<dyn Source>,
    data_offset_bytes: u64,
    tensors: Range<usize>,
    metadata: BTreeMap<String, String>,
}

impl Shard {
    /// Where its bytes come from.
    pub(crate) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        self.source.location()
    }

    /// The length of the file in bytes, header included.
    pub fn len_bytes(&self) -> u64 {
        self.source.len_bytes()
    }

    /// Where the data of the first tensor begins, in bytes from the beginning of the file.
    pub fn data_offset_bytes(&self) -> u64 {
        self.data_offset_bytes
    }

    /// The positions of its tensors in [`Checkpoint::tensors`].
    pub fn tensors(&self) -> Range<usize> {
        self.tensors.clone()
    }

    /// The `__metadata__` of its header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("location", self.location())
            .field("len_bytes", &self.len_bytes())
            .field("data_offset_bytes", &self.data_offset_bytes)
            .field("tensors", &self.tensors)
            .finish_non_exhaustive()
    }
}

/// One or more safetensors files, their headers read and checked.
pub struct Checkpoint {
    shards: Vec<Shard>,
    tensors: Vec<TensorInfo>,
    names: NameTable,
    /// Of all shards; `None` where there is one shard, which has it.
    merged_metadata: Option<BTreeMap<String, String>>,
    verifiable: bool,
    indexes: Vec<Location>,
}

impl Checkpoint {
    /// Opens the checkpoint in `locations`: files, directories, indexes, patterns, locally or in
    /// stores ([`ObjectUri`](crate::ObjectUri)).
    ///
    /// A directory is read through its `model.safetensors.index.json` or its only
    /// `*.safetensors.index.json`; else it is its `*.safetensors` files, by name. `*`, `?` and `[`
    /// make a pattern where no file of that name exists. Shards come in the order of the
    /// locations, those of one location by name. A file that is named twice counts once. Of a
    /// directory of a plain web server, which cannot be listed, `model.safetensors.index.json` or
    /// `model.safetensors` is read.
    ///
    /// Tensors of a shard that its index does not name belong to the checkpoint too.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where a file, a shard of an index, or everything a
    /// directory or pattern should hold is missing;
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint), naming file, tensor and fact, where a
    /// header or index is wrong, or two shards hold a tensor of the same name;
    /// [`InvalidInput`](ErrorKind::InvalidInput) where no location is given, or it is neither file
    /// nor directory; [`Unsupported`](ErrorKind::Unsupported) for a scheme that cannot be read;
    /// else what the system says.
    pub fn open(locations: impl IntoLocations) -> Result<Checkpoint> {
        Self::open_with(&Opener::default(), locations.into_locations()?)
    }

    /// As [`open`](Self::open), with `opener` for the sources.
    pub(crate) fn open_with(opener: &Opener, locations: Vec<Location>) -> Result<Checkpoint> {
        let opener = &opener.renewed();
        let files = resolve::resolve(opener, &locations)?;
        let is_remote = |file: &ShardFile| matches!(file.location, Location::Object(_));
        let threads = match files.shards.iter().any(is_remote) {
            true => cores().max(parallel::WAITING_THREADS),
            false => cores(),
        };
        let open = |number: usize| {
            let opened = opener.open(&files.shards[number].location);
            opened.map_err(|error| files.explain(number, error))
        };
        let mut checkpoint = Self::read(files.shards.len(), threads, open)?;
        // Sources without a check are then files that a store gave.
        checkpoint.verifiable = opener.options.verify;
        for file in &files.indexes {
            file.index.check(&checkpoint, &file.shards)?;
        }
        checkpoint.indexes = files.indexes.iter().map(|file| file.index.location.clone()).collect();
        Ok(checkpoint)
    }

    /// Reads the headers of `sources`, which become the shards in this order.
    ///
    /// # Errors
    /// As [`open`](Self::open), without those of finding files.
    #[cfg(test)]
    pub(crate) fn from_sources(sources: Vec<Arc<dyn Source>>) -> Result<Checkpoint> {
        if sources.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "no source was given"));
        }
        Self::read(sources.len(), cores(), |number| Ok(sources[number].clone()))
    }

    /// A checkpoint whose tensors are the bytes of `sources`, whatever these hold, each from the
    /// offset beside it, in pieces that end at multiples of `piece_bytes`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint) for more pieces than tensors are possible.
    pub(crate) fn of_pieces(
        sources: Vec<(Arc<dyn Source>, u64)>,
        piece_bytes: u64,
    ) -> Result<Checkpoint> {
        let keys = NameKeys::default();
        let pieces = |(shard, (source, start))| {
            header::of_pieces(source, shard as u32, start, piece_bytes, &keys)
        };
        Self::assemble(sources.into_iter().enumerate().map(pieces).collect(), keys)
    }

    /// The checkpoint of `count` shards, the sources of which `open` gives, on up to `threads`
    /// threads.
    fn read(
        count: usize,
        threads: usize,
        open: impl Fn(usize) -> Result<Arc<dyn Source>> + Sync,
    ) -> Result<Checkpoint> {
        if count > MAX_TENSORS {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{count} shards are too many"),
            ));
        }
        let keys = NameKeys::default();
        let read = |number| header::read(open(number)?, number as u32, &keys);
        let headers = parallel::try_map(count, threads, read)?;
        Self::assemble(headers, keys)
    }

    fn assemble(headers: Vec<Header>, keys: NameKeys) -> Result<Checkpoint> {
        let count = headers.iter().map(|header| header.tensors.len()).sum();
        if count > MAX_TENSORS {
            let sentence = format!("the checkpoint has {count} tensors, more than {MAX_TENSORS}");
            return Err(Error::new(ErrorKind::InvalidCheckpoint, sentence));
        }
        let mut shards = Vec::with_capacity(headers.len());
        let (mut tensors, mut hashes) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for mut header in headers {
            let first = tensors.len();
            tensors.append(&mut header.tensors);
            hashes.append(&mut header.hashes);
            header.shard.tensors = first..tensors.len();
            shards.push(header.shard);
        }
        let names = NameTable::build(keys, &hashes, name_in(&tensors))
            .map_err(|(first, second)| twice(&shards, &tensors[first], &tensors[second]))?;
        let merged_metadata = (shards.len() != 1).then(|| merge_metadata(&shards));
        let verifiable = shards.iter().all(|shard| shard.source.verifier().is_some());
        let indexes = Vec::new();
        Ok(Checkpoint { shards, tensors, names, merged_metadata, verifiable, indexes })
    }

    /// The shards, in the order in which they were named.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The locations of the indexes that named shards.
    pub fn indexes(&self) -> &[Location] {
        &self.indexes
    }

    /// The tensors, grouped by shard, by offset within a shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.position(name).map(|position| &self.tensors[position])
    }

    /// The position in [`tensors`](Self::tensors) of the tensor called `name`.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.names.get(name, name_in(&self.tensors))
    }

    /// The `__metadata__` of all shards; where two have the same key, the first one's value.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        match &self.merged_metadata {
            Some(merged) => merged,
            None => &self.shards[0].metadata,
        }
    }

    /// Whether it was opened with the checksums of its objects.
    pub(crate) fn is_verifiable(&self) -> bool {
        self.verifiable
    }

    /// The sum of the tensors' lengths in bytes.
    pub fn data_bytes(&self) -> u64 {
        // A file is below 2^63 bytes and so are all that fit one machine; nothing real saturates.
        self.tensors.iter().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.len_bytes))
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("shards", &self.shards)
            .field("tensors", &self.tensors.len())
            .field("data_bytes", &self.data_bytes())
            .finish_non_exhaustive()
    }
}

/// The name at each position, for the table of names.
fn name_in<'a>(tensors: &'a [TensorInfo]) -> impl Fn(usize) -> &'a str {
    |position| &tensors[position].name
}

/// The error for two tensors of the same name.
fn twice(shards: &[Shard], first: &TensorInfo, second: &TensorInfo) -> Error {
    let of_first = shards[first.shard()].location();
    let sentence = if first.shard == second.shard {
        format!("{of_first}: {}", header::stands_twice(&first.name))
    } else {
        format!(
            "tensor {} is both in {of_first} and in {}; name only files that belong to one \
             checkpoint",
            Quoted(&first.name),
            shards[second.shard()].location()
        )
    };
    Error::new(ErrorKind::InvalidCheckpoint, sentence)
}

fn merge_metadata(shards: &[Shard]) -> BTreeMap<String, String> {
    let mut merged = BTreeMap::new();
    for (key, value) in shards.iter().flat_map(|shard| &shard.metadata) {
        if !merged.contains_key(key) {
            merged.insert(key.clone(), value.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests;
