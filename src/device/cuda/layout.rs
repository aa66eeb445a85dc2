//! Where on a GPU each tensor goes.
//!
//! ```text
//! shard:       [header| a        | b   |gap| c        | d ...
//! allocation:  | a        | b   |..| c        | d ...            each start a multiple of 256
//! ```
//!
//! Tensors of a shard stand in one allocation in the file's order. Where one ends at a multiple of
//! 256 its neighbour follows at once, as it does in the file: then one copy brings both, and mostly
//! a whole slot is one copy.

use crate::cast::Cast;
use crate::plan::{Extent, Plan};
use std::ops::Range;
use std::sync::Arc;

/// What tensors are aligned to on a GPU: as `cudaMalloc` does, so that any kernel may use them.
pub(super) const ALIGNMENT_BYTES: u64 = 256;

/// More copies than this for one slot are left to a kernel.
const COPIES_MAX: usize = 8;

/// What stands where in the sources, by position: of the tensors of a plan, or of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    /// Which source.
    pub source: u32,
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// What is done to its elements on the way.
    pub cast: Option<Cast>,
}

impl Item {
    /// How many bytes it has on the GPU.
    pub fn target_bytes(&self) -> u64 {
        self.cast.map_or(self.len_bytes, |cast| cast.target_bytes(self.len_bytes))
    }
}

/// Where items go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// Into one allocation for each source.
    PerShard,
    /// Into an allocation of its own each.
    PerTensor,
    /// To these addresses, of memory that the caller lends; by position.
    Given(Arc<[u64]>),
}

/// One copy of a part of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copy {
    /// From this byte of the source.
    pub from: u64,
    /// To this byte of the destination that the tensor's group has.
    pub to: u64,
    pub len_bytes: u64,
}

/// One cast of a part of a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct CastPart {
    pub copy: Copy,
    pub cast: Cast,
}

/// The items of a load, and where those of one GPU go.
#[derive(Debug)]
pub(crate) struct Layout {
    items: Vec<Item>,
    /// By position: where it begins in its source's allocation.
    starts: Arc<[u64]>,
    /// By source: how long its allocation is; 0 where nothing of it goes to this GPU.
    lens_bytes: Vec<u64>,
    /// By source: how many bytes its tensors have that go to this GPU.
    tensor_bytes: Vec<u64>,
    /// Address and length of the memory that is lent.
    lent: Vec<(u64, u64)>,
    destination: Addresses,
}

impl Layout {
    /// The layout of those of `items` that stand in the extents of `place`. `source_count` sources.
    pub fn new(
        items: Vec<Item>,
        extents: &[Extent],
        place: usize,
        source_count: usize,
        destination: Addresses,
    ) -> Self {
        let mut starts = vec![0; items.len()];
        let mut lens_bytes = vec![0; source_count];
        let mut tensor_bytes = vec![0; source_count];
        let mut lent = Vec::new();
        let mut next = 0;
        for extent in extents.iter().filter(|extent| extent.destination() == place) {
            let positions = extent.positions();
            // A tensor that began in an extent before has its place.
            for position in positions.start.max(next)..positions.end {
                let item = items[position];
                let end: &mut u64 = &mut lens_bytes[item.source as usize];
                starts[position] = end.next_multiple_of(ALIGNMENT_BYTES);
                *end = starts[position] + item.target_bytes();
                tensor_bytes[item.source as usize] += item.len_bytes;
                if let Addresses::Given(addresses) = &destination {
                    lent.push((addresses[position], item.len_bytes));
                }
            }
            next = next.max(positions.end);
        }
        Self { items, starts: starts.into(), lens_bytes, tensor_bytes, lent, destination }
    }

    /// The tensors of a plan, by position.
    pub fn items_of(plan: &Plan) -> Vec<Item> {
        let item = |&index: &u32| {
            let tensor = &plan.checkpoint().tensors()[index as usize];
            Item {
                source: tensor.shard() as u32,
                offset_bytes: tensor.offset_bytes(),
                len_bytes: tensor.len_bytes(),
                cast: plan.cast_of(tensor),
            }
        };
        plan.tensors().iter().map(item).collect()
    }

    pub fn destination(&self) -> &Addresses {
        &self.destination
    }

    /// Where the byte `at` of the source goes that belongs to the item at `position`, of which nothing
    /// is cast; `base` is where the item begins.
    pub(super) fn place_of(&self, position: usize, at: u64, base: u64) -> u64 {
        base + (at - self.items[position].offset_bytes)
    }

    /// Whether something is cast on its way.
    pub fn has_casts(&self) -> bool {
        self.items.iter().any(|item| item.cast.is_some())
    }

    /// How many copies bring those of `extents` that go to `place` into place.
    pub fn count_copies(&self, extents: &[Extent], place: usize) -> usize {
        let extents = extents.iter().filter(|extent| extent.destination() == place);
        extents.map(|extent| self.copies(extent, self.relative_base()).len()).sum()
    }

    /// Whether each item has a storage of its own.
    pub fn hands_out_singly(&self) -> bool {
        self.destination == Addresses::PerTensor
    }

    /// How many bytes each item has.
    pub fn lens_by_position(&self) -> Vec<u64> {
        self.items.iter().map(|item| item.len_bytes).collect()
    }

    pub fn item(&self, position: usize) -> Item {
        self.items[position]
    }

    pub fn starts(&self) -> &Arc<[u64]> {
        &self.starts
    }

    /// How long the allocation for a source is.
    pub fn len_bytes(&self, source: usize) -> u64 {
        self.lens_bytes[source]
    }

    /// Address and length of the memory that the caller lends.
    pub fn lent(&self) -> &[(u64, u64)] {
        &self.lent
    }

    /// How many bytes the tensors of a source have together.
    pub fn tensor_bytes(&self, source: usize) -> u64 {
        self.tensor_bytes[source]
    }

    /// How much memory of the GPU the tensors take together, in bytes.
    pub fn needed_bytes(&self) -> u64 {
        match self.destination {
            Addresses::Given(_) => 0,
            _ => self.lens_bytes.iter().map(|len| len.next_multiple_of(ALIGNMENT_BYTES)).sum(),
        }
    }

    /// How many bytes of the item at `position` stand in `extent`.
    pub fn overlap_bytes(&self, position: usize, extent: &Extent) -> u64 {
        let part = self.part(position, extent);
        part.end - part.start
    }

    /// The bytes of the source that the item at `position` and `extent` share.
    pub fn part(&self, position: usize, extent: &Extent) -> Range<u64> {
        let item = self.items[position];
        let start = item.offset_bytes.max(extent.offset_bytes());
        let end = (item.offset_bytes + item.len_bytes).min(extent.end_bytes());
        start..end.max(start)
    }

    /// The copies that bring what is not cast of `extent` into place; `base` gives the address where
    /// the item at a position begins.
    pub(super) fn copies(&self, extent: &Extent, base: impl Fn(usize) -> u64) -> Vec<Copy> {
        let mut copies: Vec<Copy> = Vec::new();
        for position in extent.positions() {
            let copy = self.copy(position, extent, base(position));
            match copies.last_mut() {
                _ if copy.len_bytes == 0 || self.items[position].cast.is_some() => {}
                Some(last) if last.continues_with(&copy) => last.len_bytes += copy.len_bytes,
                _ => copies.push(copy),
            }
        }
        copies
    }

    /// What is cast of `extent`, and where it goes.
    pub(super) fn casts(
        &self,
        extent: &Extent,
        base: impl Fn(usize) -> u64,
    ) -> impl Iterator<Item = CastPart> {
        extent.positions().filter_map(move |position| {
            let cast = self.items[position].cast?;
            let copy = self.copy(position, extent, base(position));
            (copy.len_bytes > 0).then_some(CastPart { copy, cast })
        })
    }

    /// What a GPU sums up of `extent`, so many bytes at a time at most: position, and bytes of the
    /// source.
    pub(super) fn summed(
        &self,
        extent: &Extent,
        step_bytes: u64,
    ) -> impl Iterator<Item = (usize, Range<u64>)> {
        extent.positions().flat_map(move |position| {
            let part = self.part(position, extent);
            let starts = part.clone().step_by(step_bytes as usize);
            starts.map(move |start| (position, start..part.end.min(start + step_bytes)))
        })
    }

    /// The part of the item at `position` that stands in `extent`, and where it goes.
    fn copy(&self, position: usize, extent: &Extent, base: u64) -> Copy {
        let item = &self.items[position];
        let part = self.part(position, extent);
        let before = part.start.saturating_sub(item.offset_bytes);
        let to = base + item.cast.map_or(before, |cast| cast.target_bytes(before));
        Copy { from: part.start, to, len_bytes: part.end - part.start }
    }

    /// Whether `extent` is brought to the GPU as it is, for kernels to put its parts into place:
    /// where there is something to cast, and where single copies would be too many.
    pub(super) fn is_staged(&self, extent: &Extent) -> bool {
        extent.positions().any(|position| self.items[position].cast.is_some())
            || self.copies(extent, self.relative_base()).len() > COPIES_MAX
    }

    /// Where items begin relative to each other: enough to know what is one copy.
    fn relative_base(&self) -> impl Fn(usize) -> u64 {
        |position| match &self.destination {
            Addresses::PerShard => self.starts[position],
            // What is allocated apart is never one copy.
            Addresses::PerTensor => (position as u64) << 44,
            Addresses::Given(addresses) => addresses[position],
        }
    }
}

impl Copy {
    /// Whether `next` goes on where this one ends, both in the source and in the target.
    fn continues_with(&self, next: &Copy) -> bool {
        self.from + self.len_bytes == next.from && self.to + self.len_bytes == next.to
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
