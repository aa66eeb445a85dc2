//! The layout of the tensors in the memory of a GPU.
//!
//! ```text
//! shard:       [header| a        | b   |gap| c        | d ...
//! allocation:  | a        | b   |..| c        | d ...            each start a multiple of 256
//! ```
//!
//! The tensors of a shard share one allocation, in the order of the file. If a tensor ends at a
//! multiple of 256, the next one follows without a gap, as in the file, and one copy covers both.
//! Usually one copy covers a whole slot.

use crate::cast::Cast;
use crate::plan::{Extent, Plan, TensorPart};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The alignment of tensors on a GPU. It equals that of `cudaMalloc`, so any kernel can use them.
pub(super) const ALIGNMENT_BYTES: u64 = 256;

/// A slot that needs more copies than this is staged and copied by a kernel instead.
const COPIES_MAX: usize = 8;

/// A byte range of a source that goes to the GPU as one item: a tensor of a plan, or a read request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayoutItem {
    /// The index of the source.
    pub source: u32,
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// The cast that is applied to the elements, if any.
    pub cast: Option<Cast>,
}

impl LayoutItem {
    /// The length on the GPU in bytes.
    pub fn target_bytes(&self) -> u64 {
        self.cast.map_or(self.len_bytes, |cast| cast.target_bytes(self.len_bytes))
    }
}

/// The destination of the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// One allocation for each source.
    PerShard,
    /// One allocation for each item.
    PerTensor,
    /// The addresses of memory that the caller owns, by position.
    Given(Arc<[u64]>),
}

/// A copy of a part of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TensorCopy {
    /// The offset in the source.
    pub from: u64,
    /// The address on the GPU.
    pub to: u64,
    pub len_bytes: u64,
}

/// The items of a load, and the destinations of those that go to one GPU.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(super) items: Vec<LayoutItem>,
    has_casts: bool,
    /// By position: the parts of tensors that are gathered. Their items begin with their first run.
    gathered: HashMap<usize, TensorPart>,
    /// By position: the offset in the source's allocation.
    pub(super) starts: Arc<[u64]>,
    /// By source: the length of its allocation; 0 if none of its items goes to this GPU.
    pub(super) lens_bytes: Vec<u64>,
    /// By source: the bytes of its items that go to this GPU.
    pub(super) tensor_bytes: Vec<u64>,
    /// The addresses and lengths of the memory that the caller owns.
    pub(super) caller_memory: Vec<(u64, u64)>,
    pub(super) addresses: Addresses,
}

impl Layout {
    /// Lays out the items of the extents of `destination`. There are `source_count` sources.
    pub fn new(
        items: Vec<LayoutItem>,
        extents: &[Extent],
        destination: usize,
        source_count: usize,
        addresses: Addresses,
    ) -> Self {
        let mut shared_starts: Arc<[u64]> = std::iter::repeat_n(0, items.len()).collect();
        let starts = Arc::make_mut(&mut shared_starts);
        let mut lens_bytes = vec![0; source_count];
        let mut tensor_bytes = vec![0; source_count];
        let mut caller_memory = Vec::new();
        let mut next = 0;
        for extent in extents.iter().filter(|extent| extent.destination() == destination) {
            let positions = extent.positions();
            // An item that began in an earlier extent was laid out there.
            for position in positions.start.max(next)..positions.end {
                let item = items[position];
                let end: &mut u64 = &mut lens_bytes[item.source as usize];
                starts[position] = end.next_multiple_of(ALIGNMENT_BYTES);
                *end = starts[position] + item.target_bytes();
                tensor_bytes[item.source as usize] += item.len_bytes;
                if let Addresses::Given(given) = &addresses {
                    caller_memory.push((given[position], item.len_bytes));
                }
            }
            next = next.max(positions.end);
        }
        Self {
            has_casts: items.iter().any(|item| item.cast.is_some()),
            items,
            gathered: HashMap::new(),
            starts: shared_starts,
            lens_bytes,
            tensor_bytes,
            caller_memory,
            addresses,
        }
    }

    /// This layout of the tensors of `plan`, which gathers parts of tensors.
    pub fn gathering(self, plan: &Plan) -> Self {
        if !plan.has_gaps() {
            return self;
        }
        let part = |position| Some((position, plan.part(position)?.clone()));
        let parts = (0..self.items.len()).filter_map(part);
        Self { gathered: parts.filter(|(_, part)| part.has_gaps()).collect(), ..self }
    }

    /// The tensors of a plan as items, by position.
    pub fn items_of(plan: &Plan) -> Vec<LayoutItem> {
        let item = |(position, &index): (usize, &u32)| {
            let tensor = &plan.checkpoint().tensors()[index as usize];
            let span = plan.span(position);
            LayoutItem {
                source: span.shard as u32,
                offset_bytes: span.offset_bytes,
                len_bytes: span.len_bytes,
                cast: plan.cast_of(tensor),
            }
        };
        plan.tensors().iter().enumerate().map(item).collect()
    }

    /// Whether any item is cast.
    pub fn has_casts(&self) -> bool {
        self.has_casts
    }

    /// The number of copies that the extents of `destination` need.
    pub fn count_copies(&self, extents: &[Extent], destination: usize) -> usize {
        let extents = extents.iter().filter(|extent| extent.destination() == destination);
        extents.map(|extent| self.copies(extent, self.relative_base()).len()).sum()
    }

    /// The memory that has to be allocated on the GPU, in bytes.
    pub fn needed_bytes(&self) -> u64 {
        match self.addresses {
            Addresses::Given(_) => 0,
            _ => self.lens_bytes.iter().map(|len| len.next_multiple_of(ALIGNMENT_BYTES)).sum(),
        }
    }

    /// The number of bytes of the item at `position` that lie in `extent`.
    pub fn overlap_bytes(&self, position: usize, extent: &Extent) -> u64 {
        self.parts(position, extent).map(|(part, _)| part.end - part.start).sum()
    }

    /// The ranges of the source that the item at `position` and `extent` have in common, each with its
    /// offset in the item.
    fn parts(&self, position: usize, extent: &Extent) -> impl Iterator<Item = (Range<u64>, u64)> {
        let gathered = self.gathered.get(&position);
        let ranges = gathered
            .map(|part| part.within(extent.offset_bytes(), extent.len_bytes()))
            .into_iter()
            .flatten()
            .map(|range| {
                let from = range.offset_bytes;
                (from..from + range.len_bytes, range.target_bytes)
            });
        ranges.chain(gathered.is_none().then(|| self.only_part(position, extent)))
    }

    /// As [`parts`](Self::parts), of an item that is not gathered.
    fn only_part(&self, position: usize, extent: &Extent) -> (Range<u64>, u64) {
        let part = self.part(position, extent);
        let before = part.start.saturating_sub(self.items[position].offset_bytes);
        (part, before)
    }

    /// The range of the source that the item at `position` and `extent` have in common.
    fn part(&self, position: usize, extent: &Extent) -> Range<u64> {
        let item = self.items[position];
        let start = item.offset_bytes.max(extent.offset_bytes());
        let end = (item.offset_bytes + item.len_bytes).min(extent.end_bytes());
        start..end.max(start)
    }

    /// The copies of the items of `extent` that are not cast. `base` returns the address of the item
    /// at a position.
    pub(super) fn copies(&self, extent: &Extent, base: impl Fn(usize) -> u64) -> Vec<TensorCopy> {
        self.copies_up_to(usize::MAX, extent, base).unwrap_or_default()
    }

    /// The copies of `extent`. `None` if it is copied to a staging buffer, from which kernels copy or
    /// cast its items: if an item is cast, or if there would be too many single copies. `base` is as in
    /// [`copies`](Self::copies).
    pub(super) fn few_copies(
        &self,
        extent: &Extent,
        base: impl Fn(usize) -> u64,
    ) -> Option<Vec<TensorCopy>> {
        let is_cast = |position: usize| self.items[position].cast.is_some();
        let has_cast = self.has_casts && extent.positions().any(is_cast);
        if has_cast { None } else { self.copies_up_to(COPIES_MAX, extent, base) }
    }

    /// As [`copies`](Self::copies). `None` if there are more than `count_max`.
    fn copies_up_to(
        &self,
        count_max: usize,
        extent: &Extent,
        base: impl Fn(usize) -> u64,
    ) -> Option<Vec<TensorCopy>> {
        let count = extent.positions().len().min(count_max.saturating_add(1));
        let mut copies = Vec::with_capacity(count);
        let has_gaps = !self.gathered.is_empty();
        for position in extent.positions().filter(|at| self.items[*at].cast.is_none()) {
            let base = base(position);
            if has_gaps {
                let copies_of = self.copies_of(position, extent, base);
                copies_of.for_each(|copy| TensorCopy::push(&mut copies, copy));
            } else {
                let part = self.only_part(position, extent);
                TensorCopy::push(&mut copies, self.copy_of(position, part, base));
            }
            if copies.len() > count_max {
                return None;
            }
        }
        Some(copies)
    }

    /// The casts of the items of `extent`, as copies whose length is that of the source.
    pub(super) fn casts(
        &self,
        extent: &Extent,
        base: impl Fn(usize) -> u64,
    ) -> impl Iterator<Item = (TensorCopy, Cast)> {
        // Most loads cast nothing, and then no item is looked at.
        let positions = self.has_casts.then(|| extent.positions());
        positions.into_iter().flatten().flat_map(move |position| {
            let cast = self.items[position].cast;
            let copies = cast.map(|cast| {
                let copies = self.copies_of(position, extent, base(position));
                copies.filter(|copy| copy.len_bytes > 0).map(move |copy| (copy, cast))
            });
            copies.into_iter().flatten()
        })
    }

    /// The ranges of `extent` that a GPU computes a checksum of, each with the item's position. A range
    /// is a part of the source of at most `step_bytes` bytes.
    pub(super) fn checksummed(
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

    /// The copies of the ranges of the item at `position` that lie in `extent`.
    fn copies_of(
        &self,
        position: usize,
        extent: &Extent,
        base: u64,
    ) -> impl Iterator<Item = TensorCopy> {
        self.parts(position, extent).map(move |part| self.copy_of(position, part, base))
    }

    /// The copy of a part of the item at `position`, which begins `before` bytes after it.
    fn copy_of(&self, position: usize, (part, before): (Range<u64>, u64), base: u64) -> TensorCopy {
        let before = self.items[position].cast.map_or(before, |cast| cast.target_bytes(before));
        TensorCopy { from: part.start, to: base + before, len_bytes: part.end - part.start }
    }

    /// Addresses of the items relative to each other, which suffice to count the copies.
    pub(super) fn relative_base(&self) -> impl Fn(usize) -> u64 + Copy {
        |position| match &self.addresses {
            Addresses::PerShard => self.starts[position],
            // Separate allocations are far apart, so that one copy never covers two of them.
            Addresses::PerTensor => (position as u64) << 44,
            Addresses::Given(addresses) => addresses[position],
        }
    }
}

impl TensorCopy {
    /// Adds `copy` to `copies`, or makes the last one longer by it.
    fn push(copies: &mut Vec<Self>, copy: Self) {
        match copies.last_mut() {
            _ if copy.len_bytes == 0 => {}
            Some(last) if last.continues_with(&copy) => last.len_bytes += copy.len_bytes,
            _ => copies.push(copy),
        }
    }

    /// Whether `next` begins where this copy ends, both in the source and in the target.
    fn continues_with(&self, next: &TensorCopy) -> bool {
        self.from + self.len_bytes == next.from && self.to + self.len_bytes == next.to
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
