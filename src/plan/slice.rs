//! A slice: which indices of each dimension of a tensor are loaded.
//!
//! ```text
//! Slice::new([0..2, 4..8])                  indices 0 and 1 of dimension 0, 4 to 7 of dimension 1
//! Slice::share(1, 0, 4)                     the first of the 4 parts that torch.chunk(4, dim=1) makes
//! Slice::share(0, 0, 4).packed(2)           of each half of dimension 0 the first of its 4 parts
//! ```
//!
//! A slice does not depend on a tensor. [`Slice::of`] applies it to a shape, and finds every way in
//! which it does not fit.

use super::runs::{Pick, Runs};
use std::fmt;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// Which indices of each dimension of a tensor are loaded; used by [`Slices`](super::Slices).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, Slice, Slices};
///
/// // The second of three ranks: a third of the columns.
/// let share = Slices::default().with("norm", Slice::share(1, 1, 3))?;
/// let model = Loader::new().slices(share).load(&path)?;
/// assert_eq!(model.get("norm").map(|norm| norm.shape()), Some(&[2, 1][..]));
/// # Ok(())
/// # }
/// ```
///
/// A slice outside of the tensor's shape is an error, as is one without elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    kind: SliceKind,
    /// Bounds in the sliced dimension are multiples of this.
    block: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SliceKind {
    Ranges(Vec<SliceRange>),
    Share { dim: isize, rank: usize, world: usize, packed: usize },
}

/// The indices of one dimension: from `start` to before `end`, `step` apart. A negative bound counts
/// from the end of the dimension.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, Slice, SliceRange, Slices};
///
/// let every_row = SliceRange::from(..);
/// let last_two = SliceRange::new(Some(-2), None);
/// let slices = Slices::default().with("norm", Slice::new([every_row, last_two]))?;
/// let model = Loader::new().slices(slices).load(&path)?;
/// assert_eq!(model.get("norm").map(|norm| norm.shape()), Some(&[2, 2][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceRange {
    /// The first index; 0 for `None`.
    pub start: Option<isize>,
    /// The index after the last one; the size of the dimension for `None`.
    pub end: Option<isize>,
    /// The distance from one index to the next; at least 1.
    pub step: isize,
}

impl SliceRange {
    /// The indices from `start` to before `end`.
    pub fn new(start: Option<isize>, end: Option<isize>) -> Self {
        Self { start, end, step: 1 }
    }

    /// These indices of dimension `dim` of size `size`.
    fn pick(self, dim: usize, size: usize) -> Result<Pick, String> {
        let step = usize::try_from(self.step).unwrap_or(0);
        if step == 0 {
            return Err(format!("the step of dimension {dim} is {}, not at least 1", self.step));
        }
        let bound = |bound: isize| match bound {
            0.. => Some(bound as usize),
            _ => size.checked_sub(bound.unsigned_abs()),
        };
        let (start, end) = (self.start.map_or(Some(0), bound), self.end.map_or(Some(size), bound));
        match (start, end) {
            (Some(start), Some(end)) if start <= end && end <= size => {
                let count = (end - start).div_ceil(step);
                Ok(Pick { start, count, step })
            }
            _ => Err(format!("{self} is not within dimension {dim} of size {size}")),
        }
    }
}

impl fmt::Display for SliceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |bound: Option<isize>| bound.map_or(String::new(), |bound| bound.to_string());
        write!(f, "{}:{}", bound(self.start), bound(self.end))?;
        if self.step != 1 { write!(f, ":{}", self.step) } else { Ok(()) }
    }
}

/// An index as a bound. One that exceeds `isize` is beyond the end of any dimension.
fn bound(index: usize) -> Option<isize> {
    Some(isize::try_from(index).unwrap_or(isize::MAX))
}

impl From<Range<usize>> for SliceRange {
    fn from(range: Range<usize>) -> Self {
        Self::new(bound(range.start), bound(range.end))
    }
}

impl From<RangeInclusive<usize>> for SliceRange {
    fn from(range: RangeInclusive<usize>) -> Self {
        Self::new(bound(*range.start()), bound(range.end().saturating_add(1)))
    }
}

impl From<RangeToInclusive<usize>> for SliceRange {
    fn from(range: RangeToInclusive<usize>) -> Self {
        Self::new(None, bound(range.end.saturating_add(1)))
    }
}

impl From<RangeFrom<usize>> for SliceRange {
    fn from(range: RangeFrom<usize>) -> Self {
        Self::new(bound(range.start), None)
    }
}

impl From<RangeTo<usize>> for SliceRange {
    fn from(range: RangeTo<usize>) -> Self {
        Self::new(None, bound(range.end))
    }
}

impl From<RangeFull> for SliceRange {
    fn from(_: RangeFull) -> Self {
        Self::new(None, None)
    }
}

/// A slice of a tensor of some shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShapedSlice {
    pub shape: Vec<usize>,
    pub runs: Runs,
}

impl Slice {
    /// These indices of the first dimensions, and all of those after them.
    pub fn new(ranges: impl IntoIterator<Item = impl Into<SliceRange>>) -> Self {
        let ranges = ranges.into_iter().map(Into::into).collect();
        Self { kind: SliceKind::Ranges(ranges), block: 1 }
    }

    /// All of a tensor.
    pub fn whole() -> Self {
        Self::new(std::iter::empty::<SliceRange>())
    }

    /// The part of `rank` when dimension `dim` is divided among `world` ranks, as `torch.chunk` divides
    /// it: each part has the size divided by `world` and rounded up, the last ones have what is left. A
    /// rank for which nothing is left is an error. A negative `dim` counts from the last dimension.
    pub fn share(dim: isize, rank: usize, world: usize) -> Self {
        Self { kind: SliceKind::Share { dim, rank, world, packed: 1 }, block: 1 }
    }

    /// Divides each of `count` equal pieces of the dimension of [`share`](Self::share) by itself. With 2,
    /// the rank gets its part of the gate and its part of the up projection of a tensor that has both.
    #[must_use]
    pub fn packed(mut self, count: usize) -> Self {
        if let SliceKind::Share { packed, .. } = &mut self.kind {
            *packed = count;
        }
        self
    }

    /// Refuses the slice where it would cut a block of `elements` elements, such as those that share
    /// a scale in a quantized format: its bounds in each dimension that it does not take whole have to be
    /// multiples of that.
    #[must_use]
    pub fn blocks_of(self, elements: usize) -> Self {
        Self { block: elements, ..self }
    }

    /// The slice of a tensor of this `shape`, whose elements have `element_bits` bits.
    ///
    /// # Errors
    /// A description of what does not fit.
    pub(crate) fn of(&self, shape: &[usize], element_bits: u64) -> Result<ShapedSlice, String> {
        self.check()?;
        if shape.is_empty() && *self != Self::whole() {
            return Err("a scalar has no dimension to slice".to_owned());
        }
        // The shape with a packed dimension as two.
        let mut split = shape.to_vec();
        let mut sliced = shape.to_vec();
        let picks = match &self.kind {
            SliceKind::Ranges(ranges) => {
                if ranges.len() > shape.len() {
                    let (given, dims) = (ranges.len(), shape.len());
                    return Err(format!("{given} dimensions are sliced of {dims}"));
                }
                let all = SliceRange::new(None, None);
                let ranges = ranges.iter().chain(std::iter::repeat(&all));
                let pick = |(dim, (&size, range)): (usize, (&usize, &SliceRange))| {
                    self.checked(dim, size, range.pick(dim, size)?)
                };
                let picks = shape.iter().zip(ranges).enumerate().map(pick);
                let picks = picks.collect::<Result<Vec<_>, _>>()?;
                sliced = picks.iter().map(|pick| pick.count).collect();
                picks
            }
            &SliceKind::Share { dim, rank, world, packed } => {
                let dim = dimension(dim, shape.len())?;
                let size = shape[dim];
                if packed == 0 || !size.is_multiple_of(packed) {
                    return Err(format!(
                        "dimension {dim} of size {size} does not consist of {packed} equal pieces"
                    ));
                }
                let each = size / packed;
                let chunk = each.div_ceil(world);
                let start = chunk.saturating_mul(rank).min(each);
                let pick = Pick { start, count: chunk.min(each - start), step: 1 };
                if pick.count == 0 && each > 0 {
                    return Err(format!(
                        "rank {rank} of {world} gets nothing of dimension {dim} of size {size}, \
                         which comes in parts of {chunk}"
                    ));
                }
                let pick = self.checked(dim, each, pick)?;
                sliced[dim] = packed * pick.count;
                let mut picks: Vec<Pick> = shape.iter().map(|&size| Pick::all(size)).collect();
                split[dim] = each;
                picks[dim] = pick;
                split.insert(dim, packed);
                picks.insert(dim, Pick::all(packed));
                picks
            }
        };
        Ok(ShapedSlice { runs: Runs::new(&split, element_bits, &picks)?, shape: sliced })
    }

    /// Fails for what no tensor fits.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.block == 0 {
            return Err("a block has at least one element".to_owned());
        }
        match &self.kind {
            SliceKind::Share { world: 0, .. } => Err("the number of ranks is 0".to_owned()),
            SliceKind::Share { rank, world, .. } if rank >= world => {
                Err(format!("rank {rank} is not below the number of ranks, {world}"))
            }
            SliceKind::Ranges(ranges) => {
                let wrong = ranges.iter().position(|range| range.step < 1);
                wrong.map_or(Ok(()), |dim| ranges[dim].pick(dim, 0).map(drop))
            }
            SliceKind::Share { .. } => Ok(()),
        }
    }

    /// `pick`, unless it has no elements or cuts a block.
    fn checked(&self, dim: usize, size: usize, pick: Pick) -> Result<Pick, String> {
        if pick.count == 0 && size > 0 {
            return Err(format!("it takes nothing of dimension {dim} of size {size}"));
        }
        if self.block == 1 || pick == Pick::all(size) {
            return Ok(pick);
        }
        let end = pick.start + pick.count.saturating_sub(1) * pick.step + 1;
        let (start, block) = (pick.start, self.block);
        let is_cut = |bound: usize| bound != size && !bound.is_multiple_of(block);
        if pick.step > 1 || is_cut(start) || is_cut(end) {
            return Err(format!(
                "{start}..{end} of dimension {dim} of size {size} would cut a block of {block} \
                 elements"
            ));
        }
        Ok(pick)
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            SliceKind::Ranges(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(SliceRange::to_string).collect();
                write!(f, "[{}]", ranges.join(", "))?;
            }
            SliceKind::Share { dim, rank, world, packed } => {
                write!(f, "{dim}:{rank}/{world}")?;
                if *packed != 1 {
                    write!(f, " of each of {packed} pieces")?;
                }
            }
        }
        if self.block != 1 { write!(f, " in blocks of {}", self.block) } else { Ok(()) }
    }
}

/// The dimension `dim` of `count`, where negative ones count from the last.
fn dimension(dim: isize, count: usize) -> Result<usize, String> {
    let from_start = match dim {
        0.. => Some(dim as usize),
        _ => count.checked_sub(dim.unsigned_abs()),
    };
    from_start.filter(|&dim| dim < count).ok_or_else(|| {
        let s = if count == 1 { "" } else { "s" };
        format!("there is no dimension {dim}: the tensor has {count} dimension{s}")
    })
}

#[cfg(test)]
#[path = "slice_tests.rs"]
mod tests;
