//! Random numbers from a seed, and the checksum that detects rewritten memory.

use std::time::Duration;

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The random numbers of the `number`-th user of `seed`.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut random = Random(seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..end`; `end` is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in `percent` of 100 draws.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Up to `most`, evenly.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.below(most.as_nanos() as u64 + 1))
    }
}

/// A checksum of all `bytes` from `start`: changing any one word always changes it.
///
/// # Safety
/// The range is mapped and readable.
pub(crate) unsafe fn checksum(start: u64, bytes: usize) -> u64 {
    const FACTORS: [u64; 4] = [
        0x9E37_79B9_7F4A_7C15,
        0xD6E8_FEB8_6659_FD93,
        0xA076_1D64_78BD_642F,
        0xE703_7ED1_A0B4_28DB,
    ];
    let mut lanes = FACTORS;
    let block_bytes = size_of::<[u64; 4]>();
    let (blocks, tail) = (bytes / block_bytes, bytes % block_bytes);
    let mut place = start as *const u8;
    for _ in 0..blocks {
        // SAFETY: this block is inside the range, which the caller guarantees to be readable.
        let words = unsafe { place.cast::<[u64; 4]>().read_unaligned() };
        for ((lane, word), factor) in lanes.iter_mut().zip(words).zip(FACTORS) {
            *lane = (*lane ^ word).wrapping_mul(factor).rotate_left(29);
        }
        place = place.wrapping_add(block_bytes);
    }
    let mut sum = bytes as u64;
    for index in 0..tail {
        // SAFETY: these bytes are inside the range as well.
        let byte = unsafe { place.wrapping_add(index).read() };
        sum = (sum ^ u64::from(byte)).wrapping_mul(FACTORS[0]).rotate_left(29);
    }
    lanes.into_iter().fold(sum, |sum, lane| (sum ^ lane).wrapping_mul(FACTORS[1]).rotate_left(31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u64 {
        // SAFETY: a slice is readable.
        unsafe { checksum(bytes.as_ptr() as u64, bytes.len()) }
    }

    #[test]
    fn every_flipped_bit_changes_the_checksum() {
        let mut bytes = [7; 75];
        let whole = sum(&bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&bytes), whole, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(sum(&bytes), whole);
        assert_ne!(sum(&bytes[..74]), whole);
    }

    #[test]
    fn draws_follow_from_the_seed_and_the_number() {
        let draws = |seed, number| {
            let mut random = Random::new(seed, number);
            [0; 8].map(|_| random.below(1000))
        };
        assert_eq!(draws(1, 1), draws(1, 1));
        assert_ne!(draws(1, 1), draws(2, 1));
        assert_ne!(draws(1, 1), draws(1, 2));
    }
}
