//! A checkpoint: its shards, and the name, type, shape and position of each tensor.
//!
//! ```text
//! locations --resolve--> files, indexes --header (in parallel)--> shards, tensors
//!                             |                                        |
//!                             +--- apply_indexes: which shard counts, what is missing
//! ```
//!
//! Opening a checkpoint reads only headers, on as many threads as there are CPUs; several threads share
//! a header of more than 1 MiB, if there are more CPUs than shards. If shards are remote, each thread
//! waits for a server, and up to 128 headers are read at once. Threads take
//! shards in order, and the error of the first failed shard in that order is returned, so results
//! and errors do not depend on timing. No content of a file is trusted (see `header.rs`). Memory is
//! linear in the headers: about 100 bytes plus the name per tensor.

mod apply_indexes;
mod dtype;
mod header;
mod header_text;
mod in_memory;
mod index;
mod json;
mod layout;
pub(crate) mod parallel;
mod resolve;
mod scan;
mod shard;
mod tensor_info;
mod tensor_table;
mod text;

pub use in_memory::DescribedTensor;
pub use resolve::UNFINISHED_DOWNLOAD;
pub use shard::{Shard, shard_version};
pub use tensor_info::TensorInfo;

use crate::error::{Error, ErrorKind, Result, option};
use crate::location::{IntoLocations, Location};
use crate::options::CheckpointOptions;
use crate::source::{Opener, Source};
use header::Header;
use resolve::IndexFile;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tensor_table::{HashedTensors, MAX_TENSORS, NameKeys, RepeatedName, TensorTable};
use text::Quoted;

/// One or more safetensors files whose headers were read and checked.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::Loader;
///
/// let checkpoint = Loader::new().open(&path)?; // reads only the headers
/// for tensor in checkpoint.tensors() {
///     println!("{} {} {:?}: {} bytes", tensor.name(), tensor.dtype(), tensor.shape(), tensor.len_bytes());
/// }
/// assert_eq!(checkpoint.tensor("norm").map(|norm| norm.shape()), Some(&[2, 3][..]));
/// # Ok(())
/// # }
/// ```
pub struct Checkpoint {
    shards: Vec<Shard>,
    tensors: TensorTable,
    /// The metadata of all shards; `None` if there is only one shard.
    merged_metadata: Option<BTreeMap<String, String>>,
    verifiable: bool,
    indexes: Vec<Location>,
    missing: Vec<String>,
    left_out: Vec<Location>,
}

impl Checkpoint {
    /// Opens the checkpoint at `locations`: files, directories, indexes or patterns, in the local file
    /// system or in stores ([`ObjectUri`](crate::ObjectUri)).
    ///
    /// Of a directory the first of these is read: `model.safetensors.index.json`, the only
    /// `*.safetensors.index.json`, `model.safetensors`, the numbered shards
    /// (`*-00001-of-00002.safetensors`), all `*.safetensors` files. The names of diffusers
    /// (`diffusion_pytorch_model`) count like those of transformers. Files of another variant
    /// (`model.fp16.safetensors`), and files that begin with `consolidated`, `adapter`, `optimizer`,
    /// `scheduler`, `training`, `random_states`, `rng_state` or `tmp_`, are left out where there are
    /// others ([`left_out`](Self::left_out)); [`Loader::variant`](crate::Loader::variant) and
    /// [`Loader::all_files`](crate::Loader::all_files) change that. The directories of a plain web
    /// server cannot be listed; of those, `model.safetensors.index.json` or `model.safetensors` is
    /// read. A name with `*`, `?` or `[` is a pattern if no file has that name.
    ///
    /// Shards are in the order of the locations, those of one location in the order of their names. A
    /// file that is named twice is read once. A tensor of a shard belongs to the checkpoint even if
    /// the index does not name it. If two shards have a tensor, the index decides.
    ///
    /// All options have their defaults, as those of [`Loader::new`](crate::Loader::new) do.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound) if a file or a shard of an index does not exist, a directory
    ///   has no shards or not all of its numbered shards, or a pattern matches nothing.
    /// - [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint), naming the file and the tensor, if a
    ///   header or an index is invalid, or two shards hold a tensor of the same name and no index
    ///   decides.
    /// - [`InvalidInput`](ErrorKind::InvalidInput) if no location is given, or a location is neither a
    ///   file nor a directory.
    /// - [`Unsupported`](ErrorKind::Unsupported) for a scheme that cannot be read.
    /// - The errors of reading files and objects.
    pub fn open(locations: impl IntoLocations) -> Result<Checkpoint> {
        let options = CheckpointOptions::default();
        Self::open_with(&Opener::default(), &options, locations.into_locations()?)
    }

    /// As [`open`](Self::open), but with `options`, and opens the sources with `opener`.
    pub(crate) fn open_with(
        opener: &Opener,
        options: &CheckpointOptions,
        locations: Vec<Location>,
    ) -> Result<Checkpoint> {
        let opener = &opener.renewed();
        let files = resolve::resolve(opener, options, &locations)?;
        let mut locations = files.shards.iter().map(|file| &file.location);
        let count = files.shards.len();
        let threads = match locations.any(|location| matches!(location, Location::Object(_))) {
            true => {
                parallel::computing_threads(count).max(parallel::opening_threads(&opener.options))
            }
            false => parallel::computing_threads(count),
        };
        let open = |number: usize| {
            let opened = opener.open(&files.shards[number].location);
            opened.map_err(|error| files.explain(number, error))
        };
        let remedy = match options.all_files {
            true => without_all_files(),
            false => ONE_CHECKPOINT.to_owned(),
        };
        let mut checkpoint = Self::read(count, threads, open, &files.indexes, &remedy, opener)?;
        // With `verify`, a source without a checksum is a file that a store maps an object to.
        checkpoint.verifiable = opener.options.verify;
        let (tensors, shards) = (&checkpoint.tensors, &checkpoint.shards);
        checkpoint.missing =
            apply_indexes::missing_tensors(tensors, shards, &files.indexes, options.strict)?;
        checkpoint.indexes = files.indexes.into_iter().map(|file| file.index.location).collect();
        checkpoint.left_out = files.left_out;
        Ok(checkpoint)
    }

    /// Reads the headers of `sources`, which become the shards in this order.
    ///
    /// # Errors
    /// As [`open`](Self::open), except those of finding files.
    #[cfg(test)]
    pub(crate) fn from_sources(sources: Vec<Arc<dyn Source>>) -> Result<Checkpoint> {
        if sources.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "no source was given"));
        }
        let (count, source) = (sources.len(), |number: usize| Ok(sources[number].clone()));
        let threads = parallel::computing_threads(count);
        Self::read(count, threads, source, &[], ONE_CHECKPOINT, &Opener::default())
    }

    /// Creates a checkpoint from `sources` of any content. Its tensors are the bytes of each source
    /// from the offset paired with it, in pieces that end at multiples of `piece_bytes`.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`](ErrorKind::InvalidCheckpoint) if there are more pieces than a checkpoint
    /// can have tensors.
    pub(crate) fn of_pieces(
        sources: Vec<(Arc<dyn Source>, u64)>,
        piece_bytes: u64,
    ) -> Result<Checkpoint> {
        let keys = NameKeys::default();
        let pieces = |(shard, (source, start))| {
            header::of_pieces(source, shard as u32, start, piece_bytes, &keys)
        };
        let headers = sources.into_iter().enumerate().map(pieces).collect();
        Self::assemble(headers, keys, &[], ONE_CHECKPOINT)
    }

    /// Creates a checkpoint of `tensors` of one source without a header, in the order of their offsets.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if tensors overlap or exceed the source.
    pub(crate) fn described(source: Arc<dyn Source>, tensors: &[DescribedTensor]) -> Result<Self> {
        let keys = NameKeys::default();
        let header = in_memory::described(source, tensors, &keys)?;
        Self::assemble(vec![header], keys, &[], ONE_CHECKPOINT)
    }

    /// Creates a checkpoint of byte ranges of this one's tensors. A range is the index of a tensor, and
    /// bytes from its beginning; it becomes a tensor of U8 whose name is its position in `ranges`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if ranges exceed their tensors, or are not in the order
    /// of the checkpoint.
    pub(crate) fn of_ranges(&self, ranges: &[(usize, Range<u64>)]) -> Result<Checkpoint> {
        let keys = NameKeys::default();
        let mut headers: Vec<_> = self.shards.iter().map(header::without_tensors).collect();
        let mut last = (0, 0);
        for (number, (index, range)) in ranges.iter().enumerate() {
            let tensor = self.tensors().get(*index).filter(|tensor| {
                range.start < range.end
                    && range.end <= tensor.len_bytes()
                    && (tensor.shard(), tensor.offset_bytes() + range.start) >= last
            });
            let Some(tensor) = tensor else {
                let sentence =
                    format!("range {range:?} of tensor {index} is invalid or out of order");
                return Err(Error::invalid_input(sentence));
            };
            last = (tensor.shard(), tensor.offset_bytes() + range.end);
            headers[tensor.shard()].add(tensor.range(number, range), &keys);
        }
        Self::assemble(headers, keys, &[], ONE_CHECKPOINT)
    }

    /// Reads the headers of `count` shards, whose sources `open` returns, on up to `threads` threads.
    fn read(
        count: usize,
        threads: usize,
        open: impl Fn(usize) -> Result<Arc<dyn Source>> + Sync,
        indexes: &[IndexFile],
        remedy_of_repeated: &str,
        opener: &Opener,
    ) -> Result<Checkpoint> {
        if count > MAX_TENSORS {
            return Err(Error::invalid_input(format!("{count} shards are too many")));
        }
        let keys = NameKeys::default();
        let span = tracing::Span::current();
        let read = |number| {
            let _entered = span.enter();
            let (source, others) = (open(number)?, count - 1);
            let cancellation = opener.cancellation();
            let header = header::read(source, number as u32, others, &keys, cancellation)?;
            let bytes = header.shard.data_offset_bytes();
            opener.progress().into_iter().for_each(|progress| progress.header_read(bytes));
            Ok(header)
        };
        let headers = parallel::try_map(count, threads, read)?;
        Self::assemble(headers, keys, indexes, remedy_of_repeated)
    }

    /// The checkpoint of these shards. `remedy_of_repeated` is for a tensor that two of them have.
    fn assemble(
        headers: Vec<Header>,
        keys: NameKeys,
        indexes: &[IndexFile],
        remedy_of_repeated: &str,
    ) -> Result<Checkpoint> {
        let parts = headers.iter().flat_map(|header| &header.tensors);
        let count: usize = parts.map(|part| part.tensors.len()).sum();
        if count > MAX_TENSORS {
            let sentence = format!("the checkpoint has {count} tensors, more than {MAX_TENSORS}");
            return Err(Error::new(ErrorKind::InvalidCheckpoint, sentence));
        }
        let mut shards = Vec::with_capacity(headers.len());
        let parts = headers.into_iter().flat_map(|header| {
            shards.push(header.shard);
            header.tensors
        });
        let tensors = match TensorTable::build(keys.clone(), parts) {
            Err(mut repeated) if !indexes.is_empty() => {
                apply_indexes::remove_unassigned(&mut repeated.tensors, indexes);
                let tensors = HashedTensors::new(repeated.tensors, &keys);
                TensorTable::build(keys, [tensors])
            }
            built => built,
        };
        let tensors = tensors.map_err(|names| repeated(&shards, &names, remedy_of_repeated))?;
        set_ranges(&mut shards, tensors.all());
        let merged_metadata = (shards.len() != 1).then(|| merge_metadata(&shards));
        let verifiable = shards.iter().all(|shard| shard.source.verifier().is_some());
        let (indexes, missing, left_out) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Checkpoint { shards, tensors, merged_metadata, verifiable, indexes, missing, left_out })
    }

    /// The shards, in the order of the locations.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Whether the header and the tensors of `shard` are all of its bytes.
    pub(crate) fn is_whole(&self, shard: &Shard) -> bool {
        let tensors = &self.tensors()[shard.tensors()];
        let bytes: u64 = tensors.iter().map(TensorInfo::len_bytes).sum();
        shard.data_offset_bytes() + bytes == shard.len_bytes()
    }

    /// The locations of the indexes that named shards.
    pub fn indexes(&self) -> &[Location] {
        &self.indexes
    }

    /// The names of the tensors that an index names and no shard contains, sorted.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The `*.safetensors` files of the named directories that do not belong to the checkpoint.
    pub fn left_out(&self) -> &[Location] {
        &self.left_out
    }

    /// The tensors, ordered by shard and by offset within the shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.tensors.all()
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.position(name).map(|position| &self.tensors()[position])
    }

    /// The position in [`tensors`](Self::tensors) of the tensor called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tensors.position(name)
    }

    /// The `__metadata__` of all shards. If several have the same key, the first value is kept.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        match &self.merged_metadata {
            Some(merged) => merged,
            None => &self.shards[0].metadata,
        }
    }

    /// Whether every source was opened with the checksum of its object.
    pub(crate) fn is_verifiable(&self) -> bool {
        self.verifiable
    }

    /// The sum of the tensors' lengths in bytes.
    pub fn data_bytes(&self) -> u64 {
        // Files are shorter than 2^63 bytes, so the sum saturates only for checkpoints of holes.
        self.tensors().iter().fold(0, |sum: u64, tensor| sum.saturating_add(tensor.len_bytes()))
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("shards", &self.shards)
            .field("tensors", &self.tensors().len())
            .field("data_bytes", &self.data_bytes())
            .finish_non_exhaustive()
    }
}

/// Sets the range of each shard in `tensors`, which are ordered by shard.
fn set_ranges(shards: &mut [Shard], tensors: &[TensorInfo]) {
    let mut first = 0;
    for (number, shard) in shards.iter_mut().enumerate() {
        let count = tensors[first..].partition_point(|tensor| tensor.shard() == number);
        shard.tensors = first..first + count;
        first += count;
    }
}

/// The remedy for a tensor that two shards have.
const ONE_CHECKPOINT: &str = "name only files that belong to one checkpoint";

/// As [`ONE_CHECKPOINT`], where all files of a directory are read.
fn without_all_files() -> String {
    let option = option("all_files").on();
    format!(
        "leave {option} out, so that one checkpoint of the directory is read, or name the files"
    )
}

/// The error for two tensors of the same name.
fn repeated(shards: &[Shard], repeated: &RepeatedName, remedy: &str) -> Error {
    let [first, second] = repeated.positions.map(|position| &repeated.tensors[position]);
    let of_first = shards[first.shard()].location();
    let sentence = if first.shard() == second.shard() {
        format!("{of_first}: {}{}", layout::occurs_twice(first.name()), header::REMEDY)
    } else {
        format!(
            "tensor {} is both in {of_first} and in {}; {remedy}",
            Quoted(first.name()),
            shards[second.shard()].location()
        )
    };
    Error::new(ErrorKind::InvalidCheckpoint, sentence)
}

fn merge_metadata(shards: &[Shard]) -> BTreeMap<String, String> {
    let mut merged = BTreeMap::new();
    for (key, value) in shards.iter().flat_map(|shard| &shard.metadata) {
        merged.entry(key.clone()).or_insert_with(|| value.clone());
    }
    merged
}

#[cfg(test)]
mod tests;
