//! A shard of a checkpoint.

use crate::location::Location;
use crate::source::Source;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

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
