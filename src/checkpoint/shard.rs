//! A shard of a checkpoint, and the description of a tensor.

use crate::dtype::Dtype;
use crate::location::Location;
use crate::source::Source;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The description of one tensor, as checked from its header.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let checkpoint = ringload::Loader::new().open(&path)?;
/// let norm = checkpoint.tensor("norm").ok_or("no norm")?;
/// let file = checkpoint.shards()[norm.shard()].location();
/// println!("{}: {} bytes from {} of {file}", norm.name(), norm.len_bytes(), norm.offset_bytes());
/// assert_eq!((norm.dtype(), norm.shape()), (ringload::Dtype::F32, &[2, 3][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub(super) name: Box<str>,
    pub(super) shape: Box<[usize]>,
    pub(super) offset_bytes: u64,
    pub(super) len_bytes: u64,
    pub(super) shard: u32,
    pub(super) dtype: Dtype,
}

impl TensorInfo {
    /// The name, which is unique in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions, slowest-varying first; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The index of the tensor's shard in [`Checkpoint::shards`](super::Checkpoint::shards).
    pub fn shard(&self) -> usize {
        self.shard as usize
    }

    /// The offset of the tensor's first byte from the beginning of the shard's file, in bytes.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The length in bytes, which follows from shape and type; 0 if a dimension is 0.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The bytes `range` of this tensor as a tensor called `number`.
    pub(super) fn range(&self, number: usize, range: &Range<u64>) -> Self {
        let len_bytes = range.end - range.start;
        Self {
            name: number.to_string().into(),
            shape: [len_bytes as usize].into(),
            offset_bytes: self.offset_bytes + range.start,
            len_bytes,
            shard: self.shard,
            dtype: Dtype::U8,
        }
    }
}

/// One file of a checkpoint.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let checkpoint = ringload::Loader::new().open(&path)?;
/// for shard in checkpoint.shards() {
///     let tensors = &checkpoint.tensors()[shard.tensors()];
///     println!("{}: {} bytes, {} tensors", shard.location(), shard.len_bytes(), tensors.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Shard {
    pub(super) source: Arc<dyn Source>,
    pub(super) data_offset_bytes: u64,
    pub(super) header_crc: u64,
    pub(super) tensors: Range<usize>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Shard {
    /// The source of its bytes.
    pub(crate) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The location of the file.
    pub fn location(&self) -> &Location {
        self.source.location()
    }

    /// The length of the file in bytes, header included.
    pub fn len_bytes(&self) -> u64 {
        self.source.len_bytes()
    }

    /// How many bytes of the file are in the page cache; `None` for an object. Reads of a cached file
    /// are copies from there, and need memory of no particular alignment.
    pub fn cached_bytes(&self) -> Option<u64> {
        self.source.cached_bytes()
    }

    /// The offset of the first tensor's data from the beginning of the file, in bytes.
    pub fn data_offset_bytes(&self) -> u64 {
        self.data_offset_bytes
    }

    /// The CRC-64/NVME of the header: all bytes before the first tensor's data.
    pub(crate) fn header_crc(&self) -> u64 {
        self.header_crc
    }

    /// The positions of the shard's tensors in [`Checkpoint::tensors`](super::Checkpoint::tensors).
    pub fn tensors(&self) -> Range<usize> {
        self.tensors.clone()
    }

    /// The `__metadata__` of the shard's header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// What distinguishes a shard from one that replaced it: the validators of its object, or the length and
/// time of its file, and the checksum of its header. Processes that opened the same bytes agree on it.
pub fn shard_version(shard: &Shard) -> String {
    format!("{}, header {:016x}", shard.source.version(), shard.header_crc)
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
