//! Gathering tensors into extents.

use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use safetensors::Dtype;
use std::ops::Range;

/// No element of any dtype is longer than this, with room to spare.
const ELEMENT_BYTES_MAX: u64 = 64;

/// A contiguous byte range of one shard that fills one slot, and whose tensors go to one destination.
///
/// For the host it holds whole tensors; for a GPU it may begin and end in the middle of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    shard: u32,
    destination: u8,
    first_tensor: u32,
    tensor_count: u32,
    offset_bytes: u64,
    len_bytes: u64,
    /// From which type to which its tensors are cast on the way, if they are.
    cast: Option<(Dtype, Dtype)>,
}

impl Extent {
    /// `len_bytes` from `offset_bytes` of a shard, in which the plan's tensors `positions` lie.
    pub(crate) fn new(
        shard: usize,
        destination: u8,
        positions: Range<usize>,
        offset_bytes: u64,
        len_bytes: u64,
    ) -> Self {
        Self {
            shard: shard as u32,
            destination,
            first_tensor: positions.start as u32,
            tensor_count: positions.len() as u32,
            offset_bytes,
            len_bytes,
            cast: None,
        }
    }

    /// How its tensors are cast in its slot; all of them or none.
    pub(crate) fn cast(&self) -> Option<Cast> {
        self.cast.and_then(|(from, to)| Cast::new(from, to))
    }

    /// How many bytes its tensors have when they are cast; 0 when they are not.
    pub(crate) fn cast_bytes(&self) -> u64 {
        self.cast().map_or(0, |cast| cast.target_bytes(self.len_bytes))
    }

    /// The shard it lies in.
    pub fn shard(&self) -> usize {
        self.shard as usize
    }

    /// Where its tensors go: an index into the plan's devices.
    pub(crate) fn destination(&self) -> usize {
        usize::from(self.destination)
    }

    /// The tensors that it holds all or a part of, as a range of the plan's list.
    pub fn positions(&self) -> Range<usize> {
        let first = self.first_tensor as usize;
        first..first + self.tensor_count as usize
    }

    /// Where its first byte lies in the shard.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// How many bytes it has; 0 when all its tensors are empty.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Where its last byte ends in the shard.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + self.len_bytes
    }

    /// Where its slot begins in the shard: the offset, rounded down to the source's block.
    pub fn slot_offset_bytes(&self, block_bytes: usize) -> u64 {
        self.offset_bytes / block_bytes as u64 * block_bytes as u64
    }

    /// How long its slot is: from there to its end, rounded up to the block.
    pub fn slot_len_bytes(&self, block_bytes: usize) -> u64 {
        let end = self.end_bytes();
        end.next_multiple_of(block_bytes as u64) - self.slot_offset_bytes(block_bytes)
    }

    /// The memory its slot takes from a ring of blocks of `ring_block_bytes`.
    pub(super) fn slot_bytes(&self, checkpoint: &Checkpoint, ring_block_bytes: usize) -> u64 {
        if self.len_bytes == 0 {
            return 0;
        }
        let block = checkpoint.shards()[self.shard()].source().block_bytes();
        let ring_block = ring_block_bytes as u64;
        self.cast_bytes().next_multiple_of(ring_block)
            + self.slot_len_bytes(block).next_multiple_of(ring_block)
    }

    /// Whether `span`, which goes to `destination`, continues this extent without a gap.
    fn continues_with(&self, span: &Span, destination: u8) -> bool {
        self.shard() == span.shard
            && self.destination == destination
            && self.end_bytes() == span.offset_bytes
    }

    /// Whether `span` may be added without making the extent too long.
    fn has_room_for(&self, span: &Span, extent_bytes: u64) -> bool {
        let longer = Self { len_bytes: self.len_bytes + span.len_bytes, ..*self };
        span.len_bytes == 0 || longer.len_bytes + longer.cast_bytes() <= extent_bytes
    }
}

/// What is to be read, as far as extents care: a tensor, or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Which shard or source.
    pub shard: usize,
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// It is not cut within one of these.
    pub element_bytes: u64,
}

impl From<&TensorInfo> for Span {
    fn from(tensor: &TensorInfo) -> Self {
        Self {
            shard: tensor.shard(),
            offset_bytes: tensor.offset_bytes(),
            len_bytes: tensor.len_bytes(),
            element_bytes: (tensor.dtype().bitsize() as u64 / 8).clamp(1, ELEMENT_BYTES_MAX),
        }
    }
}

/// How the tensors of a plan are gathered.
pub(super) struct Gather<'a> {
    pub checkpoint: &'a Checkpoint,
    /// Indices into the checkpoint's tensors, by shard and offset.
    pub tensors: &'a [u32],
    /// The destination of each.
    pub destinations: &'a [u8],
    /// Of each destination, how long an extent should be, and whether it may cut tensors.
    pub shapes: &'a [Shape],
    /// What floats are cast to.
    pub dtype: Option<Dtype>,
}

/// How extents of one destination are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Whole tensors, gathered while they fit into so many bytes.
    Whole(u64),
    /// Pieces that end at multiples of so many bytes of the source.
    Pieces(u64),
}

impl Gather<'_> {
    pub fn extents(&self) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        for (position, (&index, &destination)) in
            self.tensors.iter().zip(self.destinations).enumerate()
        {
            let tensor = &self.checkpoint.tensors()[index as usize];
            let span = Span::from(tensor);
            match self.shapes[usize::from(destination)] {
                Shape::Whole(bytes) => {
                    let (from, to) = (tensor.dtype(), self.dtype);
                    let cast = to.filter(|&to| Cast::new(from, to).is_some());
                    let cast = cast.map(|to| (from, to));
                    add_whole(&mut extents, position, &span, destination, cast, bytes);
                }
                Shape::Pieces(bytes) => {
                    add_pieces(&mut extents, position, &span, destination, bytes)
                }
            }
        }
        extents.shrink_to_fit();
        extents
    }
}

/// The extents of `spans`, each with its destination, all cut at multiples of `piece_bytes`.
pub(crate) fn pieces_of(
    spans: impl IntoIterator<Item = (Span, u8)>,
    piece_bytes: u64,
) -> Vec<Extent> {
    let mut extents = Vec::new();
    for (position, (span, destination)) in spans.into_iter().enumerate() {
        add_pieces(&mut extents, position, &span, destination, piece_bytes);
    }
    extents
}

fn add_whole(
    extents: &mut Vec<Extent>,
    position: usize,
    span: &Span,
    destination: u8,
    cast: Option<(Dtype, Dtype)>,
    extent_bytes: u64,
) {
    match extents.last_mut() {
        Some(extent)
            if extent.continues_with(span, destination)
                && extent.cast == cast
                && extent.has_room_for(span, extent_bytes) =>
        {
            extent.len_bytes += span.len_bytes;
            extent.tensor_count += 1;
        }
        _ => {
            let (offset, len) = (span.offset_bytes, span.len_bytes);
            let extent = Extent::new(span.shard, destination, position..position + 1, offset, len);
            extents.push(Extent { cast, ..extent });
        }
    }
}

/// Continues the last extent up to its next cut, and makes more of what is left.
fn add_pieces(
    extents: &mut Vec<Extent>,
    position: usize,
    span: &Span,
    destination: u8,
    piece_bytes: u64,
) {
    let end = span.offset_bytes + span.len_bytes;
    let mut at = span.offset_bytes;
    if let Some(extent) = extents.last_mut().filter(|last| last.continues_with(span, destination)) {
        let to = cut_after(extent.offset_bytes, span, piece_bytes).min(end);
        // What ends at a cut already is full.
        if to > at || span.len_bytes == 0 {
            extent.len_bytes += to - at;
            extent.tensor_count += 1;
            at = to;
        }
    }
    while at < end || is_missing(extents, position) {
        let to = cut_after(at, span, piece_bytes).min(end);
        extents.push(Extent::new(span.shard, destination, position..position + 1, at, to - at));
        at = to;
    }
}

/// Whether what stands at `position`, which is empty then, is in no extent yet.
fn is_missing(extents: &[Extent], position: usize) -> bool {
    extents.last().is_none_or(|last| last.positions().end <= position)
}

/// Where an extent that begins at `start` and holds bytes of `span` is to end: at a multiple of
/// `piece_bytes`, so that all reads but the first and the last are aligned; but never within an
/// element, so that every piece of a tensor can be converted by itself.
fn cut_after(start: u64, span: &Span, piece_bytes: u64) -> u64 {
    // An extent that ends a little early does not leave a tiny one behind it.
    let cut = (start + ELEMENT_BYTES_MAX).next_multiple_of(piece_bytes);
    cut - cut.saturating_sub(span.offset_bytes) % span.element_bytes
}
