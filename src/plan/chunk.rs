//! Cuts byte ranges into reads.

use crate::source::Source;

/// The range of one read, which fills a part of an extent's slot or of the caller's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The offset in the source.
    pub offset_bytes: u64,
    /// How many bytes to read. The window may be longer, up to the end of a block.
    pub want_bytes: usize,
}

/// How long the reads of a load are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSize {
    /// The greatest length, a multiple of every source's block.
    pub bytes_max: u64,
    /// Whether reads are as long as the server or the file system makes them best.
    pub adapts: bool,
}

impl ChunkSize {
    /// The length of the next reads of `source`, in a load that reads into `memory_bytes` of memory
    /// and has `left_bytes` to begin.
    pub fn of(&self, source: &dyn Source, memory_bytes: u64, left_bytes: u64) -> u64 {
        let adapted = source.range_bytes(memory_bytes, left_bytes).filter(|_| self.adapts);
        let bytes = adapted.map_or(self.bytes_max, |bytes| bytes.min(self.bytes_max));
        bytes.next_multiple_of(source.block_bytes() as u64)
    }
}

/// The ends, relative to `offset`, of the reads of `len` bytes from `offset`. All reads but the first
/// and the last begin and end at multiples of `chunk_bytes` in the source.
///
/// `chunk_bytes` is a multiple of the source's block.
pub fn chunk_ends(offset: u64, len: u64, chunk_bytes: u64) -> Vec<usize> {
    let end = offset + len;
    let mut ends = Vec::with_capacity((len / chunk_bytes) as usize + 2);
    // A first chunk shorter than half of `chunk_bytes` is joined with the next one.
    let mut cut = (offset + chunk_bytes / 2).next_multiple_of(chunk_bytes);
    while cut < end {
        ends.push((cut - offset) as usize);
        cut += chunk_bytes;
    }
    ends.push(len as usize);
    ends
}

/// The ends of the ranges of `len` bytes, which have about `chunk_bytes` each: as many fewer or more as
/// makes them equally long. They end at multiples of `block`.
pub fn even_ends(len: u64, chunk_bytes: u64, block: u64) -> Vec<usize> {
    let ranges = ((len + chunk_bytes / 2) / chunk_bytes).max(1);
    let each = len.div_ceil(ranges).next_multiple_of(block);
    (1..=len.div_ceil(each)).map(|number| (number * each).min(len) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn even_ranges_cover_all_in_order(len in 1_u64..1 << 26, chunk in 1_u64..1 << 24, log in 0_u32..13) {
            let block = 1_u64 << log;
            let chunk = chunk.next_multiple_of(block);
            let ends = even_ends(len, chunk, block);
            prop_assert_eq!(*ends.last().unwrap() as u64, len);
            let mut start = 0;
            for &end in &ends {
                prop_assert!(end > start);
                prop_assert!((end - start) as u64 <= (chunk * 3).div_ceil(2).next_multiple_of(block));
                prop_assert!(end as u64 == len || (end as u64).is_multiple_of(block));
                start = end;
            }
        }

        #[test]
        fn chunks_cover_the_range_in_order(offset in 0_u64..1 << 40, len in 1_u64..1 << 26, log in 12_u32..24) {
            let chunk = 1_u64 << log;
            let ends = chunk_ends(offset, len, chunk);
            prop_assert_eq!(*ends.last().unwrap() as u64, len);
            let mut start = 0;
            for (i, &end) in ends.iter().enumerate() {
                prop_assert!(end > start);
                prop_assert!(end - start <= chunk as usize * 3 / 2);
                if i + 1 < ends.len() {
                    prop_assert_eq!((offset + end as u64) % chunk, 0);
                }
                start = end;
            }
        }
    }
}
