//! The part of a tensor that a load reads.
//!
//! ```text
//! contiguous   |  tensor  ######         |   one run: the extent has its bytes and no others
//! gathered     |  tensor ## ## ## ##     |   many runs: extents are pieces of the tensor, from which
//!                                            the runs are copied
//! packed       | ##..| ##..|##| ##..|    |   short: an extent has several tensors, with the gaps between
//!                                            them, out of which they are copied next to each other
//! ```

use super::packing::is_short;
use super::runs::Runs;
use super::slice::Slice;
use crate::checkpoint::TensorInfo;
use crate::source::Source;
use std::sync::Arc;

/// Gaps of up to this many bytes between runs are read along with the runs. Reading 64 KiB more takes a
/// disk of 2 GB/s about 30 microseconds, as long as the processor needs for another read; over a network,
/// 1 MiB takes a connection of 100 MB/s about 10 ms, as long as the first byte of another request.
const GAP_BYTES: u64 = 64 << 10;
const GAP_BYTES_REMOTE: u64 = 1 << 20;

/// The longest gap between runs of `source` that is read along with them.
pub(crate) fn gap_bytes(source: &dyn Source) -> u64 {
    if source.is_remote() { GAP_BYTES_REMOTE } else { GAP_BYTES }
}

/// A part of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorPart {
    shape: Arc<[usize]>,
    runs: Runs,
    /// The offset of the tensor in its shard.
    tensor_offset_bytes: u64,
}

/// A range of bytes of a shard that a part holds, and where in the part it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartRange {
    /// The offset in the shard.
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// The offset in the part, in bytes as stored.
    pub target_bytes: u64,
}

impl TensorPart {
    /// The part of `tensor` that `slice` takes; `None` if that is all of it.
    ///
    /// # Errors
    /// A description of why the slice does not fit the tensor.
    pub fn new(tensor: &TensorInfo, slice: &Slice) -> Result<Option<Self>, String> {
        let sliced = slice.of(tensor.shape(), tensor.dtype().bitsize() as u64)?;
        if sliced.shape == tensor.shape() {
            return Ok(None);
        }
        let tensor_offset_bytes = tensor.offset_bytes();
        Ok(Some(Self { shape: sliced.shape.into(), runs: sliced.runs, tensor_offset_bytes }))
    }

    /// The dimensions of the part.
    pub fn shape(&self) -> &Arc<[usize]> {
        &self.shape
    }

    /// The runs of the part in the tensor.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The length of the part in bytes, as stored.
    pub fn len_bytes(&self) -> u64 {
        self.runs.len_bytes()
    }

    /// The offset in the shard of the first byte of the part.
    pub fn offset_bytes(&self) -> u64 {
        self.tensor_offset_bytes + self.runs.first_bytes()
    }

    /// The length of the range of the shard that the part is in, from its first byte to its last.
    pub fn range_bytes(&self) -> u64 {
        self.runs.range_bytes()
    }

    /// Whether the part consists of more than one run.
    pub fn has_gaps(&self) -> bool {
        self.runs.count() > 1
    }

    /// Whether the part has gaps and is too long to be packed.
    pub fn is_gathered(&self) -> bool {
        self.has_gaps() && !is_short(self.range_bytes())
    }

    /// The ranges of the part that lie in `len_bytes` bytes from `offset_bytes` of the shard.
    pub fn within(&self, offset_bytes: u64, len_bytes: u64) -> impl Iterator<Item = PartRange> {
        let tensor = self.tensor_offset_bytes;
        let start = offset_bytes.saturating_sub(tensor);
        let end = (offset_bytes + len_bytes).saturating_sub(tensor);
        let run_bytes = self.runs.run_bytes();
        self.runs.from(start).take_while(move |&(_, run)| run < end).filter_map(
            move |(number, run)| {
                let (from, to) = (run.max(start), (run + run_bytes).min(end));
                (from < to).then(|| PartRange {
                    offset_bytes: tensor + from,
                    len_bytes: to - from,
                    target_bytes: number * run_bytes + (from - run),
                })
            },
        )
    }

    /// The ranges of the shard to read for a part that is gathered: each at most `piece_bytes` long, and
    /// with gaps of at most `gap_bytes` between its runs. None ends within an element.
    pub fn pieces(
        &self,
        piece_bytes: u64,
        gap_bytes: u64,
        element_bytes: u64,
    ) -> impl Iterator<Item = (u64, u64)> {
        let run_bytes = self.runs.run_bytes();
        let step = (piece_bytes / element_bytes * element_bytes).max(element_bytes);
        let tensor = self.tensor_offset_bytes;
        let mut runs = self.runs.offsets().peekable();
        // What is left of a run that is longer than a piece.
        let mut rest = 0..0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                let first = runs.next()?;
                rest = first..first + run_bytes;
            }
            let start = rest.start;
            if rest.end - start > step {
                rest.start += step;
                return Some((tensor + start, step));
            }
            let mut end = rest.end;
            rest = 0..0;
            let fits = |end: u64, run: u64| {
                run - end <= gap_bytes && run + run_bytes - start <= piece_bytes
            };
            while let Some(next) = runs.next_if(|&next| fits(end, next)) {
                end = next + run_bytes;
            }
            Some((tensor + start, end - start))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Pick;
    use proptest::prelude::*;

    fn part(shape: &[usize], picks: &[Pick], element_bytes: u64) -> TensorPart {
        TensorPart {
            shape: picks.iter().map(|pick| pick.count).collect(),
            runs: Runs::new(shape, 8 * element_bytes, picks).unwrap(),
            tensor_offset_bytes: 1000,
        }
    }

    fn dimension() -> impl Strategy<Value = (usize, Pick)> {
        (1_usize..7, 0_usize..7, 1_usize..7, 1_usize..3).prop_map(|(size, start, count, step)| {
            let start = start.min(size - 1);
            let most = (size - start).div_ceil(step);
            (size, Pick { start, count: count.min(most), step })
        })
    }

    proptest! {
        /// However a part is cut into pieces, its ranges in them are its bytes in order, once each.
        #[test]
        fn the_pieces_of_a_part_hold_each_of_its_bytes_once(
            dimensions in prop::collection::vec(dimension(), 1..5),
            element_bytes in prop::sample::select(vec![1_u64, 2, 8]),
            piece_bytes in 1_u64..80,
            gap_bytes in 0_u64..20,
        ) {
            let (shape, picks): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
            let part = part(&shape, &picks, element_bytes);
            let run_bytes = part.runs.run_bytes();
            let bytes = part.runs.offsets().flat_map(|run| run..run + run_bytes);
            let expected: Vec<u64> = bytes.map(|byte| 1000 + byte).collect();
            let (mut found, mut last_end) = (Vec::new(), 0);
            for (offset, len) in part.pieces(piece_bytes, gap_bytes, element_bytes) {
                prop_assert!(offset >= last_end && len > 0);
                prop_assert!(len <= piece_bytes.max(element_bytes), "{} > {}", len, piece_bytes);
                last_end = offset + len;
                let ranges: Vec<_> = part.within(offset, len).collect();
                prop_assert_eq!(ranges[0].offset_bytes, offset, "a piece begins with a run");
                let last = ranges.last().unwrap();
                prop_assert_eq!(last.offset_bytes + last.len_bytes, last_end, "and ends with one");
                for two in ranges.windows(2) {
                    let gap = two[1].offset_bytes - two[0].offset_bytes - two[0].len_bytes;
                    prop_assert!(gap <= gap_bytes);
                }
                for range in ranges {
                    prop_assert_eq!(range.target_bytes, found.len() as u64);
                    prop_assert_eq!(range.len_bytes % element_bytes, 0);
                    found.extend(range.offset_bytes..range.offset_bytes + range.len_bytes);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
