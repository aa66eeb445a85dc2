//! Parts of tensors: converts a shape and picked indices to runs of bytes, and those to reads.
//!
//! ```text
//! shape [3, 4, 5], picks [0..2, 1..3, all]      a run: the bytes of the innermost dimensions that
//!   #####                                       are taken whole, and those picked of the next one
//!   ===== = one run of 2 x 5 elements
//!   =====   at [0, 1]; the next one at [1, 1]   a read: runs that are close together
//!   #####
//! ```
//!
//! This module only computes ranges and does not read. The runs are not stored one by one: they
//! take a few words per dimension, whatever their number.

use std::ops::Range;

/// The indices to take of one dimension: `count` indices from `start`, `step` apart.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, Pick};
/// use std::sync::Arc;
///
/// let loader = Loader::new();
/// let checkpoint = Arc::new(loader.open(&path)?);
/// let picks = [Pick::all(2), Pick::from(1..3)]; // all rows, and two of three columns
/// let part = loader.read_tensor(&checkpoint, "norm", Some(&picks))?;
/// assert_eq!(part.shape(), [2, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The first index.
    pub start: usize,
    /// The number of indices; 0 for an empty result.
    pub count: usize,
    /// The distance from one index to the next; at least 1.
    pub step: usize,
}

impl Pick {
    /// All indices of a dimension of this size.
    pub fn all(size: usize) -> Self {
        Self { start: 0, count: size, step: 1 }
    }

    /// The last index; `None` if there is none or it overflows.
    fn last(self) -> Option<usize> {
        self.start.checked_add(self.step.checked_mul(self.count.checked_sub(1)?)?)
    }

    fn is_within(self, size: usize) -> bool {
        self.step > 0 && (self.count == 0 || self.last().is_some_and(|last| last < size))
    }
}

/// The indices of the range, which takes none if it ends before it begins.
impl From<Range<usize>> for Pick {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, count: range.len(), step: 1 }
    }
}

/// The bytes of a part of a tensor: runs of equal length, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runs {
    /// The offset of the first run in the tensor.
    first_bytes: u64,
    /// The length of each run; 0 if there are none.
    run_bytes: u64,
    /// The dimensions over which runs repeat, outermost first: the number of repetitions and their
    /// distance in bytes.
    repeats: Vec<(u64, u64)>,
}

/// A read of one or more runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRead {
    /// The offset in the tensor.
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// The offset in the tensor of each run of the read.
    pub runs: Vec<u64>,
}

impl Runs {
    /// The runs that `picks` select of a tensor with this `shape`, whose size in bits fits 64 bits.
    ///
    /// # Errors
    /// A description of what is wrong with the picks: among others, that a run of elements narrower
    /// than a byte does not begin and end at whole bytes.
    pub fn new(shape: &[usize], element_bits: u64, picks: &[Pick]) -> Result<Self, String> {
        if picks.len() != shape.len() {
            let (have, want) = (picks.len(), shape.len());
            return Err(format!("{have} dimensions are picked of {want}"));
        }
        for (dimension, (pick, &size)) in picks.iter().zip(shape).enumerate() {
            if !pick.is_within(size) {
                return Err(format!("{pick:?} is not within dimension {dimension} of size {size}"));
            }
        }
        if picks.iter().any(|pick| pick.count == 0) {
            // An empty selection has no runs. The product of the other dimensions may overflow.
            return Ok(Self { first_bytes: 0, run_bytes: 0, repeats: Vec::new() });
        }
        let (mut first_bits, mut run_bits) = (0, element_bits);
        let mut repeats = Vec::new();
        let mut stride_bits = element_bits;
        for (pick, &size) in picks.iter().zip(shape).rev() {
            first_bits += pick.start as u64 * stride_bits;
            // Whether the run covers all inner dimensions without a gap.
            let is_run = repeats.is_empty() && run_bits == stride_bits;
            match (pick.count as u64, pick.step as u64) {
                (1, _) => {}
                (count, 1) if is_run => run_bits *= count,
                (count, step) => repeats.push((count, step * stride_bits)),
            }
            stride_bits *= size as u64;
        }
        let distances = repeats.iter().map(|&(_, distance_bits)| distance_bits);
        if distances.chain([first_bits, run_bits]).any(|bits| !bits.is_multiple_of(8)) {
            return Err(format!(
                "the part would cut a byte, as its elements have {element_bits} bits; choose a \
                 part that begins and ends at whole bytes, or read all of the tensor"
            ));
        }
        let in_bytes = |(count, distance_bits): (u64, u64)| (count, distance_bits / 8);
        let repeats = repeats.into_iter().rev().map(in_bytes).collect();
        Ok(Self { first_bytes: first_bits / 8, run_bytes: run_bits / 8, repeats })
    }

    /// The length of each run.
    pub fn run_bytes(&self) -> u64 {
        self.run_bytes
    }

    /// The offset of the first run in the tensor.
    pub fn first_bytes(&self) -> u64 {
        self.first_bytes
    }

    /// The dimensions over which runs repeat, outermost first: how often, and at which distance in bytes.
    pub fn repeats(&self) -> &[(u64, u64)] {
        &self.repeats
    }

    /// How many runs there are.
    pub fn count(&self) -> u64 {
        if self.run_bytes == 0 { 0 } else { self.repeats.iter().map(|&(count, _)| count).product() }
    }

    /// The distance from the beginning of the first run to the end of the last one.
    pub fn range_bytes(&self) -> u64 {
        let between = self.repeats.iter().map(|&(count, distance)| (count - 1) * distance);
        between.sum::<u64>() + self.run_bytes
    }

    /// The length of all runs together.
    pub fn len_bytes(&self) -> u64 {
        self.run_bytes * self.count()
    }

    /// The offset of each run in the tensor.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        (0..self.count()).map(|run| self.offset(run))
    }

    /// The numbers and offsets of the runs from the last one on that begins at or before `at`; all of
    /// them if none does.
    pub fn from(&self, at: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut rest = at.saturating_sub(self.first_bytes);
        let step = |number, &(count, distance): &(u64, u64)| {
            // The runs of one repetition lie before the next one.
            let index = (rest / distance).min(count - 1);
            rest -= index * distance;
            number * count + index
        };
        let first = self.repeats.iter().fold(0, step);
        (first..self.count()).map(|run| (run, self.offset(run)))
    }

    /// The offset of the run with this number.
    fn offset(&self, run: u64) -> u64 {
        let mut rest = run;
        let step = |offset, &(count, distance): &(u64, u64)| {
            let index = rest % count;
            rest /= count;
            offset + index * distance
        };
        self.repeats.iter().rev().fold(self.first_bytes, step)
    }

    /// The reads that cover all runs. Runs with at most `gap_bytes` between them are read together, as
    /// long as the read has at most `most_bytes`.
    pub fn reads(&self, gap_bytes: u64, most_bytes: u64) -> impl Iterator<Item = RunRead> {
        let mut offsets = self.offsets().peekable();
        std::iter::from_fn(move || {
            let first = offsets.next()?;
            let mut read =
                RunRead { offset_bytes: first, len_bytes: self.run_bytes, runs: vec![first] };
            let fits = |read: &RunRead, next: u64| {
                let end = read.offset_bytes + read.len_bytes;
                next - end <= gap_bytes && next + self.run_bytes - read.offset_bytes <= most_bytes
            };
            while let Some(next) = offsets.next_if(|&next| fits(&read, next)) {
                read.len_bytes = next + self.run_bytes - read.offset_bytes;
                read.runs.push(next);
            }
            Some(read)
        })
    }
}

impl RunRead {
    /// The range of each run within the read.
    pub fn within(&self, run_bytes: u64) -> impl Iterator<Item = Range<usize>> {
        self.runs.iter().map(move |run| {
            let start = (run - self.offset_bytes) as usize;
            start..start + run_bytes as usize
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The offsets of all elements picked, one by one.
    fn naive(shape: &[usize], element_bytes: u64, picks: &[Pick]) -> Vec<u64> {
        let mut offsets = vec![0];
        for (pick, &size) in picks.iter().zip(shape) {
            let indices = (0..pick.count).map(|i| (pick.start + i * pick.step) as u64);
            let indices: Vec<u64> = indices.collect();
            offsets = offsets
                .iter()
                .flat_map(|offset| indices.iter().map(move |index| offset * size as u64 + index))
                .collect();
        }
        offsets.into_iter().map(|offset| offset * element_bytes).collect()
    }

    fn dimension() -> impl Strategy<Value = (usize, Pick)> {
        (0_usize..7, 0_usize..7, 0_usize..7, 1_usize..4).prop_map(|(size, start, count, step)| {
            let start = start.min(size);
            let most = (size - start).div_ceil(step);
            (size, Pick { start, count: count.min(most), step })
        })
    }

    proptest! {
        #[test]
        fn runs_are_the_elements_one_by_one(
            dimensions in prop::collection::vec(dimension(), 0..5),
            element_bytes in prop::sample::select(vec![1_u64, 2, 4, 8]),
        ) {
            let (shape, picks): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
            let runs = Runs::new(&shape, 8 * element_bytes, &picks).unwrap();
            let elements = |start: u64| {
                (0..runs.run_bytes() / element_bytes).map(move |i| start + i * element_bytes)
            };
            let found: Vec<u64> = runs.offsets().flat_map(elements).collect();
            prop_assert_eq!(&found, &naive(&shape, element_bytes, &picks));
            prop_assert_eq!(runs.len_bytes(), found.len() as u64 * element_bytes);
        }

        /// The bits picked, one by one, are those of whole bytes exactly if the picks are accepted.
        #[test]
        fn elements_narrower_than_a_byte_are_picked_in_whole_bytes_only(
            dimensions in prop::collection::vec(dimension(), 1..4),
            element_bits in prop::sample::select(vec![4_u64, 6]),
        ) {
            let (shape, picks): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
            let bits: Vec<u64> = naive(&shape, element_bits, &picks)
                .into_iter()
                .flat_map(|start| start..start + element_bits)
                .collect();
            let eight_of_a_byte =
                |eight: &[u64]| eight[0].is_multiple_of(8) && eight.iter().zip(eight[0]..).all(|(a, b)| *a == b);
            let whole = bits.len().is_multiple_of(8) && bits.chunks(8).all(eight_of_a_byte);
            match Runs::new(&shape, element_bits, &picks) {
                Ok(runs) => {
                    prop_assert!(whole, "{shape:?} {picks:?}");
                    let bytes = runs.offsets().flat_map(|start| start..start + runs.run_bytes());
                    let found: Vec<_> = bytes.flat_map(|byte| 8 * byte..8 * byte + 8).collect();
                    prop_assert_eq!(found, bits);
                }
                Err(why) => {
                    prop_assert!(!whole, "{shape:?} {picks:?}");
                    prop_assert!(why.contains("would cut a byte"), "{}", why);
                }
            }
        }

        #[test]
        fn reads_cover_every_run_once_in_order_and_keep_to_gap_and_size(
            dimensions in prop::collection::vec(dimension(), 0..5),
            gap in 0_u64..20,
            most in 1_u64..60,
        ) {
            let (shape, picks): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
            let runs = Runs::new(&shape, 16, &picks).unwrap();
            let reads: Vec<RunRead> = runs.reads(gap, most).collect();
            let covered: Vec<u64> = reads.iter().flat_map(|read| read.runs.clone()).collect();
            prop_assert_eq!(covered, runs.offsets().collect::<Vec<_>>());
            for read in &reads {
                prop_assert!(read.runs.len() == 1 || read.len_bytes <= most);
                prop_assert!(read.runs.windows(2).all(|two| two[1] - two[0] - runs.run_bytes() <= gap));
                prop_assert_eq!(read.offset_bytes, read.runs[0]);
                let ends: Vec<_> = read.within(runs.run_bytes()).map(|range| range.end).collect();
                prop_assert_eq!(*ends.last().unwrap() as u64, read.len_bytes);
            }
            // What could have been read together was.
            for two in reads.windows(2) {
                let end = two[0].offset_bytes + two[0].len_bytes;
                let next = two[1].offset_bytes;
                let joined = next + runs.run_bytes() - two[0].offset_bytes;
                prop_assert!(next - end > gap || joined > most);
            }
        }
    }

    #[test]
    fn rows_are_one_run_and_columns_are_many() {
        let rows = [Pick { start: 1, count: 2, step: 1 }, Pick::all(5)];
        let runs = Runs::new(&[4, 5], 32, &rows).unwrap();
        assert_eq!((runs.count(), runs.run_bytes(), runs.first_bytes), (1, 40, 20));
        let columns = [Pick::all(4), Pick { start: 2, count: 2, step: 1 }];
        let runs = Runs::new(&[4, 5], 32, &columns).unwrap();
        assert_eq!(runs.offsets().collect::<Vec<_>>(), [8, 28, 48, 68]);
        assert_eq!(Runs::new(&[], 32, &[]).unwrap().len_bytes(), 4, "a scalar is one element");
    }

    #[test]
    fn picks_beyond_the_shape_are_refused() {
        let pick = |start, count, step| [Pick { start, count, step }];
        for wrong in [pick(0, 6, 1), pick(5, 1, 1), pick(0, 2, 0), pick(0, 3, usize::MAX)] {
            let refused = Runs::new(&[5], 8, &wrong).unwrap_err();
            assert!(refused.contains("dimension 0 of size 5"), "{refused}");
        }
        assert!(Runs::new(&[5], 8, &[]).unwrap_err().contains("0 dimensions are picked of 1"));
        assert_eq!(Runs::new(&[5], 8, &pick(9, 0, 1)).unwrap().count(), 0);
    }
}
