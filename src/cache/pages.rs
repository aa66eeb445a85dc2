//! Pages and their seals.
//!
//! The seal of a page is 8 bytes: the CRC-64 of its bytes (those that the object has: the last page
//! may be short), mixed with the page's number and the entry's names, so that a seal means nothing
//! in another place. Zero says that the page is missing, and no seal is zero.

use crate::checksum::crc64_nvme;
use std::ops::Range;

/// What is checked, and present or missing, as one.
pub(super) const PAGE_BYTES: u64 = crate::ring::PAGE_BYTES as u64;

/// The length of a seal.
pub(super) const SEAL_BYTES: u64 = 8;

/// A missing page's.
pub(super) const MISSING: u64 = 0;

/// Makes the seals of one object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealer {
    salt: u64,
    len_bytes: u64,
}

impl Sealer {
    /// For the object of `len_bytes` with names of this place and identity.
    pub fn new(place: &str, identity: &str, len_bytes: u64) -> Self {
        let salt = crc64_nvme(format!("{place}/{identity}").as_bytes());
        Self { salt, len_bytes }
    }

    /// How many pages there are.
    pub fn pages(&self) -> u64 {
        self.len_bytes.div_ceil(PAGE_BYTES)
    }

    /// The seal of `page`.
    pub fn seal(&self, page: u64, bytes: &[u8]) -> u64 {
        (crc64_nvme(bytes) ^ mixed(self.salt ^ page.wrapping_mul(0x9E37_79B9_7F4A_7C15))) | 1
    }

    /// The whole pages among `len` bytes from `offset`, which is a page's start; the object's end
    /// ends a page, too.
    pub fn whole(&self, offset: u64, len: u64) -> Range<u64> {
        let first = offset / PAGE_BYTES;
        let end = offset + len;
        let last = if end >= self.len_bytes { self.pages() } else { end / PAGE_BYTES };
        first..last.max(first)
    }

    /// Where `pages` end in the object.
    pub fn end_of(&self, pages: &Range<u64>) -> u64 {
        (pages.end * PAGE_BYTES).min(self.len_bytes)
    }

    /// The seals of `bytes`, which are the pages from `first` on.
    pub fn seals(&self, first: u64, bytes: &[u8]) -> Vec<u64> {
        let pages = bytes.chunks(PAGE_BYTES as usize);
        (first..).zip(pages).map(|(page, bytes)| self.seal(page, bytes)).collect()
    }

    /// Those of the pages in `bytes`, which begin with page `first`, that are not as `seals` say.
    pub fn wrong(&self, first: u64, bytes: &[u8], seals: &[u64]) -> Vec<u64> {
        let pages = (first..).zip(bytes.chunks(PAGE_BYTES as usize)).zip(seals);
        let wrong = pages.filter(|((page, bytes), seal)| self.seal(*page, bytes) != **seal);
        wrong.map(|((page, _), _)| page).collect()
    }
}

/// A number that looks random for each number (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Seals as they stand in the file.
pub(super) fn to_bytes(seals: &[u64]) -> Vec<u8> {
    seals.iter().flat_map(|seal| seal.to_le_bytes()).collect()
}

/// The seals in these bytes of the file.
pub(super) fn from_bytes(bytes: &[u8]) -> Vec<u64> {
    let (seals, _) = bytes.as_chunks::<{ SEAL_BYTES as usize }>();
    seals.iter().map(|seal| u64::from_le_bytes(*seal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_one_page_of_one_object_and_of_every_bit() {
        let sealer = Sealer::new("place", "one", 10_000);
        let page = vec![7; PAGE_BYTES as usize];
        let seal = sealer.seal(1, &page);
        assert_ne!(seal, MISSING);
        assert_ne!(seal, sealer.seal(2, &page));
        assert_ne!(seal, Sealer::new("place", "two", 10_000).seal(1, &page));
        for bit in (0..8 * page.len()).step_by(13) {
            let mut flipped = page.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The lowest bit of a seal is given up; no single flip may be lost with it.
            assert_ne!(sealer.seal(1, &flipped), seal, "bit {bit}");
        }
    }

    #[test]
    fn the_object_s_end_ends_a_page() {
        let sealer = Sealer::new("place", "one", 10_000);
        assert_eq!(sealer.pages(), 3);
        assert_eq!(sealer.whole(0, 4095), 0..0);
        assert_eq!(sealer.whole(4096, 4100), 1..2);
        assert_eq!(sealer.whole(8192, 1808), 2..3);
        assert_eq!(sealer.whole(8192, 4096), 2..3);
        assert_eq!(sealer.end_of(&(0..3)), 10_000);
        let bytes = vec![1; 10_000];
        let mut seals = sealer.seals(0, &bytes);
        assert_eq!(from_bytes(&to_bytes(&seals)), seals);
        assert!(sealer.wrong(0, &bytes, &seals).is_empty());
        (seals[1], seals[2]) = (MISSING, seals[1]);
        assert_eq!(sealer.wrong(0, &bytes, &seals), [1, 2]);
    }
}
