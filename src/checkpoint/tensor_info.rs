//! The description of a tensor, and the arenas that hold the names and shapes of many.
//!
//! A checkpoint may have millions of tensors, and allocations for each would take most of the time of
//! opening it. So [`TensorInfos`] puts the names and the shapes of all tensors of a header, or of a part
//! of it, into one [`Arena`], which lives as long as any of their descriptions.

use crate::dtype::Dtype;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Names and shapes, one after the other.
struct Arena {
    names: Box<str>,
    dimensions: Box<[usize]>,
}

/// A part of the names or of the dimensions of an arena. Both come from the text of a header, which has
/// less than 2^32 bytes.
#[derive(Clone, Copy)]
struct Part {
    start: u32,
    len: u32,
}

impl Part {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// This part of `names`.
    fn of(self, names: &str) -> &str {
        &names[self.range()]
    }
}

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
#[derive(Clone)]
pub struct TensorInfo {
    arena: Arc<Arena>,
    /// Where the arena has the name.
    name: Part,
    /// Where the arena has the shape.
    shape: Part,
    offset_bytes: u64,
    len_bytes: u64,
    shard: u32,
    dtype: Dtype,
}

impl TensorInfo {
    /// The name, which is unique in the checkpoint.
    pub fn name(&self) -> &str {
        self.name.of(&self.arena.names)
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions, slowest-varying first; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.arena.dimensions[self.shape.range()]
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
        let bytes = [self.offset_bytes + range.start, len_bytes];
        Self::of_bytes(&number.to_string(), self.shard, bytes)
    }

    /// Bytes of a shard as a tensor called `name`: the offset in the file, and the length.
    pub(super) fn of_bytes(name: &str, shard: u32, [offset_bytes, len_bytes]: [u64; 2]) -> Self {
        let arena = Arena { names: name.into(), dimensions: [len_bytes as usize].into() };
        Self {
            name: Part { start: 0, len: name.len() as u32 },
            shape: Part { start: 0, len: 1 },
            arena: Arc::new(arena),
            offset_bytes,
            len_bytes,
            shard,
            dtype: Dtype::U8,
        }
    }
}

impl PartialEq for TensorInfo {
    fn eq(&self, other: &Self) -> bool {
        let numbers = |info: &Self| (info.offset_bytes, info.len_bytes, info.shard, info.dtype);
        numbers(self) == numbers(other)
            && self.name() == other.name()
            && self.shape() == other.shape()
    }
}

impl Eq for TensorInfo {}

impl fmt::Debug for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorInfo")
            .field("name", &self.name())
            .field("shape", &self.shape())
            .field("offset_bytes", &self.offset_bytes)
            .field("len_bytes", &self.len_bytes)
            .field("shard", &self.shard)
            .field("dtype", &self.dtype)
            .finish()
    }
}

/// Collects the descriptions of tensors of one header.
#[derive(Default)]
pub(super) struct TensorInfos {
    names: String,
    dimensions: Vec<usize>,
    collected: Vec<Collected>,
}

/// A tensor whose name and shape end here in the arena, and begin where those before it end.
struct Collected {
    offset_bytes: u64,
    len_bytes: u64,
    name_end: u32,
    shape_end: u32,
    dtype: Dtype,
}

impl TensorInfos {
    /// Reserves memory for `count` tensors.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { collected: Vec::with_capacity(count), ..Self::default() }
    }

    /// Adds a tensor whose bytes are given by the offset in the file, and the length.
    pub(super) fn add(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        [offset_bytes, len_bytes]: [u64; 2],
    ) {
        self.names.push_str(name);
        self.dimensions.extend_from_slice(shape);
        let (name_end, shape_end) = (self.names.len() as u32, self.dimensions.len() as u32);
        let collected = Collected { offset_bytes, len_bytes, name_end, shape_end, dtype };
        self.collected.push(collected);
    }

    /// The descriptions of the tensors, which belong to `shard`.
    pub(super) fn of_shard(self, shard: u32) -> Vec<TensorInfo> {
        let arena = Arena { names: self.names.into(), dimensions: self.dimensions.into() };
        let arena = Arc::new(arena);
        let (mut name_start, mut shape_start) = (0, 0);
        let info = |collected: Collected| {
            let Collected { offset_bytes, len_bytes, name_end, shape_end, dtype } = collected;
            let name = Part { start: name_start, len: name_end - name_start };
            let shape = Part { start: shape_start, len: shape_end - shape_start };
            (name_start, shape_start) = (name_end, shape_end);
            let arena = Arc::clone(&arena);
            TensorInfo { arena, name, shape, offset_bytes, len_bytes, shard, dtype }
        };
        self.collected.into_iter().map(info).collect()
    }
}
