//! Gathers small tensors into extents, and cuts large tensors into pieces.

use super::packing::{self, is_short, packed_bytes, packed_start};
use super::parts::{TensorPart, gap_bytes};
use super::wanted::Wanted;
use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use std::ops::Range;

/// An upper bound of the size of an element of any dtype, in bytes.
const ELEMENT_BYTES_MAX: u64 = 64;

/// A contiguous byte range of one shard that fills one slot. Its tensors go to one destination.
///
/// An extent for the host holds whole tensors, or all of their parts. An extent for a GPU may begin and
/// end in the middle of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    shard: u32,
    destination: u8,
    first_tensor: u32,
    tensor_count: u32,
    offset_bytes: u64,
    len_bytes: u64,
    /// The types that all tensors of the extent are cast from and to. `None` if they are not cast.
    cast: Option<(Dtype, Dtype)>,
    /// Whether the extent is a piece of one tensor, from which a part is gathered.
    is_gathered: bool,
    /// The bytes of the slot in which the tensors are packed; 0 if they are not.
    packed_bytes: u32,
}

impl Extent {
    /// An extent of `len_bytes` bytes from `offset_bytes` of a shard, which hold the tensors at
    /// `positions` of the plan.
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
            is_gathered: false,
            packed_bytes: 0,
        }
    }

    /// A piece of the tensor at `position` of the plan, from which a part of it is gathered.
    pub(super) fn gathered(
        shard: usize,
        destination: u8,
        position: usize,
        (offset_bytes, len_bytes): (u64, u64),
    ) -> Self {
        let extent = Self::new(shard, destination, position..position + 1, offset_bytes, len_bytes);
        Self { is_gathered: true, ..extent }
    }

    /// Whether the extent is a piece of one tensor, from which a part is gathered.
    pub(crate) fn is_gathered(&self) -> bool {
        self.is_gathered
    }

    /// The cast of the extent's tensors in host memory. Either all of them are cast or none.
    pub(crate) fn cast(&self) -> Option<Cast> {
        self.cast.and_then(|(from, to)| Cast::new(from, to))
    }

    /// Whether the tensors are packed: copied next to each other, without the gaps of the extent.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed_bytes > 0
    }

    /// The bytes of the slot that the tensors in host memory are copied to, as they are packed or cast;
    /// 0 if they stay where they are read.
    pub(crate) fn copied_bytes(&self) -> u64 {
        match (self.packed_bytes, self.cast()) {
            (0, None) => 0,
            (0, Some(cast)) => cast.target_bytes(self.len_bytes),
            (packed, _) => packed.into(),
        }
    }

    /// The index of the extent's shard.
    pub fn shard(&self) -> usize {
        self.shard as usize
    }

    /// The destination of the extent's tensors: an index into the plan's devices.
    pub(crate) fn destination(&self) -> usize {
        usize::from(self.destination)
    }

    /// The tensors of which the extent holds all or a part, as a range of the plan's list.
    pub fn positions(&self) -> Range<usize> {
        let first = self.first_tensor as usize;
        first..first + self.tensor_count as usize
    }

    /// The offset of the extent's first byte in the shard.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The extent's length in bytes; 0 if all its tensors are empty.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The offset of the extent's end in the shard.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + self.len_bytes
    }

    /// The offset in the shard of the slot's first byte: the extent's offset, rounded down to the
    /// source's block.
    pub fn slot_offset_bytes(&self, block_bytes: usize) -> u64 {
        self.offset_bytes / block_bytes as u64 * block_bytes as u64
    }

    /// The length of the slot in bytes, from its offset to the extent's end, rounded up to the
    /// source's block.
    pub fn slot_len_bytes(&self, block_bytes: usize) -> u64 {
        let end = self.end_bytes();
        end.next_multiple_of(block_bytes as u64) - self.slot_offset_bytes(block_bytes)
    }

    /// The bytes that the extent's slots take from a ring with blocks of `ring_block_bytes`.
    pub(super) fn slot_bytes(&self, checkpoint: &Checkpoint, ring_block_bytes: usize) -> u64 {
        if self.len_bytes == 0 {
            return 0;
        }
        let block = checkpoint.shards()[self.shard()].source().block_bytes();
        let ring_block = ring_block_bytes as u64;
        self.copied_bytes().next_multiple_of(ring_block)
            + self.slot_len_bytes(block).next_multiple_of(ring_block)
    }

    /// Whether `span`, which goes to `destination`, follows this extent with a gap of at most `gap_bytes`.
    fn is_followed_by(&self, span: &Span, destination: u8, gap_bytes: u64) -> bool {
        let gap = span.offset_bytes.checked_sub(self.end_bytes());
        self.shard() == span.shard
            && !self.is_gathered
            && self.destination == destination
            && gap.is_some_and(|gap| gap <= gap_bytes)
    }
}

/// The byte range of a tensor, of a part of one, or of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The index of the shard or source.
    pub shard: usize,
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// The size of an element in bytes. Elements are not cut.
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

/// The inputs from which the extents of a plan are made.
pub(super) struct Gather<'a> {
    pub wanted: Wanted<'a>,
    /// The most bytes of a piece from which a part is gathered for the host.
    pub gather_bytes: u64,
    /// The shape of the extents of each destination.
    pub shapes: &'a [ExtentShape],
}

/// How the extents of one destination are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtentShape {
    /// Whole tensors, which are gathered as long as they fit into this many bytes.
    Whole(u64),
    /// Pieces of tensors that end at multiples of this many bytes of the source.
    Pieces(u64),
}

impl Gather<'_> {
    pub fn extents(&self) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        for (position, &destination) in self.wanted.destinations.iter().enumerate() {
            let mut span = Span::from(self.wanted.tensor(position));
            if let Some(part) = self.wanted.part(position) {
                (span.offset_bytes, span.len_bytes) = (part.offset_bytes(), part.range_bytes());
                if part.is_gathered() {
                    self.add_gathered(&mut extents, position, part, &span);
                    continue;
                }
            }
            match self.shapes[usize::from(destination)] {
                ExtentShape::Whole(bytes) => self.add_whole(&mut extents, position, &span, bytes),
                ExtentShape::Pieces(bytes) => {
                    let gap_bytes = self.gap_bytes(&span);
                    add_pieces(&mut extents, position, &span, destination, bytes, gap_bytes);
                }
            }
        }
        extents.shrink_to_fit();
        extents
    }

    /// The longest gap before the bytes of a tensor that is read along with them.
    fn gap_bytes(&self, span: &Span) -> u64 {
        if self.wanted.parts.is_empty() || !is_short(span.len_bytes) {
            return 0;
        }
        let source = self.wanted.checkpoint.shards()[span.shard].source();
        let alone = Extent::new(span.shard, 0, 0..1, span.offset_bytes, span.len_bytes);
        let alone_bytes = alone.slot_len_bytes(source.block_bytes());
        packing::gap_bytes(&**source, span.len_bytes, alone_bytes)
    }

    /// Adds the tensor at `position`, whose bytes are within `span`, to the last extent, if that has at
    /// most `extent_bytes` with it, or to an extent of its own.
    fn add_whole(
        &self,
        extents: &mut Vec<Extent>,
        position: usize,
        span: &Span,
        extent_bytes: u64,
    ) {
        let from = self.wanted.tensor(position).dtype();
        let to = self.wanted.dtype.filter(|&to| Cast::new(from, to).is_some());
        let cast = to.map(|to| (from, to));
        let packed_bytes = match self.wanted.part(position).is_some_and(TensorPart::has_gaps) {
            true => self.wanted.delivered_bytes(position) as u32,
            false => 0,
        };
        let (offset, len) = (span.offset_bytes, span.len_bytes);
        let destination = self.wanted.destinations[position];
        let alone = Extent::new(span.shard, destination, position..position + 1, offset, len);
        let alone = Extent { cast, packed_bytes, ..alone };
        let fits = |longer: &Extent| {
            span.len_bytes == 0 || longer.len_bytes + longer.copied_bytes() <= extent_bytes
        };
        let longer = extents.last().and_then(|last| self.joined(last, &alone, span)).filter(fits);
        match (longer, extents.last_mut()) {
            (Some(longer), Some(last)) => *last = longer,
            _ => extents.push(alone),
        }
    }

    /// `last` with the tensor of `next`, whose bytes are within `span`. `None` if they are better read
    /// by themselves.
    fn joined(&self, last: &Extent, next: &Extent, span: &Span) -> Option<Extent> {
        let gap_bytes = self.gap_bytes(span);
        if last.cast != next.cast || !last.is_followed_by(span, next.destination, gap_bytes) {
            return None;
        }
        let longer = Extent {
            len_bytes: next.end_bytes() - last.offset_bytes,
            tensor_count: last.tensor_count + 1,
            ..*last
        };
        if last.end_bytes() == next.offset_bytes && !last.is_packed() && !next.is_packed() {
            return Some(longer);
        }
        let before = match last.packed_bytes {
            0 => {
                packed_bytes(last.positions().map(|position| self.wanted.delivered_bytes(position)))
            }
            packed => packed.into(),
        };
        let end = packed_start(before) + self.wanted.delivered_bytes(next.positions().start);
        let are_short = is_short(next.len_bytes) && (last.is_packed() || is_short(last.len_bytes));
        are_short.then_some(Extent { packed_bytes: end as u32, ..longer })
    }

    /// Adds the pieces from which `part` of the tensor at `position` is gathered.
    fn add_gathered(
        &self,
        extents: &mut Vec<Extent>,
        position: usize,
        part: &TensorPart,
        span: &Span,
    ) {
        let destination = self.wanted.destinations[position];
        let piece_bytes = match self.shapes[usize::from(destination)] {
            ExtentShape::Whole(_) => self.gather_bytes,
            ExtentShape::Pieces(bytes) => bytes,
        };
        let gap_bytes = gap_bytes(&**self.wanted.checkpoint.shards()[span.shard].source());
        let piece = |range| Extent::gathered(span.shard, destination, position, range);
        let pieces = part.pieces(piece_bytes, gap_bytes, span.element_bytes);
        extents.extend(pieces.map(piece));
    }
}

/// The extents of `spans`, which are paired with their destinations, cut at multiples of
/// `piece_bytes`.
pub(crate) fn pieces_of(
    spans: impl IntoIterator<Item = (Span, u8)>,
    piece_bytes: u64,
) -> Vec<Extent> {
    let mut extents = Vec::new();
    for (position, (span, destination)) in spans.into_iter().enumerate() {
        add_pieces(&mut extents, position, &span, destination, piece_bytes, 0);
    }
    extents
}

/// Adds `span` to the last extent up to its next cut, if at most `gap_bytes` are between them, and new
/// extents for the rest.
fn add_pieces(
    extents: &mut Vec<Extent>,
    position: usize,
    span: &Span,
    destination: u8,
    piece_bytes: u64,
    gap_bytes: u64,
) {
    let end = span.offset_bytes + span.len_bytes;
    let mut at = span.offset_bytes;
    let follows = |last: &&mut Extent| last.is_followed_by(span, destination, gap_bytes);
    if let Some(extent) = extents.last_mut().filter(follows) {
        let to = end_after(extent.offset_bytes, span, piece_bytes);
        // An extent that ends at a cut is full.
        if to > at || span.len_bytes == 0 {
            extent.len_bytes = to - extent.offset_bytes;
            extent.tensor_count += 1;
            at = to;
        }
    }
    while at < end || is_missing(extents, position) {
        let to = end_after(at, span, piece_bytes);
        extents.push(Extent::new(span.shard, destination, position..position + 1, at, to - at));
        at = to;
    }
}

/// Whether no extent holds the span at `position`, of which no bytes are left.
fn is_missing(extents: &[Extent], position: usize) -> bool {
    extents.last().is_none_or(|last| last.positions().end <= position)
}

/// Where an extent that begins at `start` and holds bytes of `span` ends: at the end of the span, or before
/// at a multiple of `piece_bytes`, so that all reads but the first and the last are aligned, but never
/// within an element, so that each piece of a tensor can be cast by itself.
fn end_after(start: u64, span: &Span, piece_bytes: u64) -> u64 {
    // The margin keeps an extent that ends just before a multiple from being followed by a tiny
    // one.
    let cut = (start + ELEMENT_BYTES_MAX).next_multiple_of(piece_bytes);
    let end = span.offset_bytes + span.len_bytes;
    match end + ELEMENT_BYTES_MAX <= cut {
        true => end,
        false => end.min(cut - cut.saturating_sub(span.offset_bytes) % span.element_bytes),
    }
}
