//! Pages and their checksums.
//!
//! The checksum of a page has 8 bytes: the CRC-64 of the page's bytes (the object's last page may be
//! short), mixed with the page's number and the entry's names, so that it is valid for one page of
//! one object only. Zero marks a missing page; no checksum is zero.

use crate::checksum::crc64_nvme;
use crate::ring::Part;
use std::ops::Range;

/// The length of a page in bytes: the unit that is present or missing, and has a checksum.
pub(super) const PAGE_BYTES: u64 = crate::ring::PAGE_BYTES as u64;

/// The length of a checksum in bytes.
pub(super) const CHECKSUM_BYTES: u64 = 8;

/// The value that stands for the checksum of a missing page.
pub(super) const MISSING: u64 = 0;

/// The bytes of pages that are to be written.
pub(super) enum PageBytes {
    /// Shared memory in a slot of a load.
    Slot(Part),
    Owned(Vec<u8>),
}

impl PageBytes {
    pub fn len(&self) -> usize {
        match self {
            Self::Slot(part) => part.len(),
            Self::Owned(bytes) => bytes.len(),
        }
    }
}

/// Computes the page checksums of one object.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageChecksums {
    salt: u64,
    pub len_bytes: u64,
}

impl PageChecksums {
    /// The checksums of an object of `len_bytes` whose entry has these names.
    pub fn new(address: &str, identity: &str, len_bytes: u64) -> Self {
        let salt = crc64_nvme(format!("{address}/{identity}").as_bytes());
        Self { salt, len_bytes }
    }

    /// The number of the object's pages.
    pub fn pages(&self) -> u64 {
        self.len_bytes.div_ceil(PAGE_BYTES)
    }

    /// The checksum of `page`, which has these bytes.
    pub fn of_page(&self, page: u64, bytes: &[u8]) -> u64 {
        (crc64_nvme(bytes) ^ splitmix64(self.salt ^ page.wrapping_mul(0x9E37_79B9_7F4A_7C15))) | 1
    }

    /// The checksums of the pages from `first` on, which have these bytes.
    pub fn of_pages(&self, first: u64, bytes: &[u8]) -> Vec<u64> {
        let pages = bytes.chunks(PAGE_BYTES as usize);
        (first..).zip(pages).map(|(page, bytes)| self.of_page(page, bytes)).collect()
    }

    /// The numbers of the pages that do not match their `checksums`, among the pages from `first`
    /// on with these `bytes`.
    pub fn mismatches(&self, first: u64, bytes: &[u8], checksums: &[u64]) -> Vec<u64> {
        let pages = (first..).zip(bytes.chunks(PAGE_BYTES as usize)).zip(checksums);
        let wrong = pages.filter(|((page, bytes), sum)| self.of_page(*page, bytes) != **sum);
        wrong.map(|((page, _), _)| page).collect()
    }

    /// The whole pages among `len` bytes from `offset`, which is the start of a page. The object's
    /// last page is whole where the object ends.
    pub fn whole_pages(&self, offset: u64, len: u64) -> Range<u64> {
        let first = offset / PAGE_BYTES;
        let end = offset + len;
        let last = if end >= self.len_bytes { self.pages() } else { end / PAGE_BYTES };
        first..last.max(first)
    }

    /// The offset in the object at which `pages` end.
    pub fn end_of(&self, pages: &Range<u64>) -> u64 {
        (pages.end * PAGE_BYTES).min(self.len_bytes)
    }

    /// The length of `pages` in bytes.
    pub fn len_of(&self, pages: &Range<u64>) -> usize {
        (self.end_of(pages) - pages.start * PAGE_BYTES) as usize
    }
}

/// The output function of the SplitMix64 generator.
fn splitmix64(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Encodes checksums as in the file of checksums.
pub(super) fn to_bytes(checksums: &[u64]) -> Vec<u8> {
    checksums.iter().flat_map(|checksum| checksum.to_le_bytes()).collect()
}

/// Decodes checksums from the bytes of the file of checksums.
pub(super) fn from_bytes(bytes: &[u8]) -> Vec<u64> {
    let (checksums, _) = bytes.as_chunks::<{ CHECKSUM_BYTES as usize }>();
    checksums.iter().map(|checksum| u64::from_le_bytes(*checksum)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_of_one_page_of_one_object_and_of_every_bit() {
        let checksums = PageChecksums::new("address", "one", 10_000);
        let page = vec![7; PAGE_BYTES as usize];
        let checksum = checksums.of_page(1, &page);
        assert_ne!(checksum, MISSING);
        assert_ne!(checksum, checksums.of_page(2, &page));
        assert_ne!(checksum, PageChecksums::new("address", "two", 10_000).of_page(1, &page));
        for bit in (0..8 * page.len()).step_by(13) {
            let mut flipped = page.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The lowest bit of a checksum is always set; no single flip may be lost with it.
            assert_ne!(checksums.of_page(1, &flipped), checksum, "bit {bit}");
        }
    }

    #[test]
    fn the_object_s_end_ends_a_page() {
        let checksums = PageChecksums::new("address", "one", 10_000);
        assert_eq!(checksums.pages(), 3);
        assert_eq!(checksums.whole_pages(0, 4095), 0..0);
        assert_eq!(checksums.whole_pages(4096, 4100), 1..2);
        assert_eq!(checksums.whole_pages(8192, 1808), 2..3);
        assert_eq!(checksums.whole_pages(8192, 4096), 2..3);
        assert_eq!(checksums.end_of(&(0..3)), 10_000);
        let bytes = vec![1; 10_000];
        let mut sums = checksums.of_pages(0, &bytes);
        assert_eq!(from_bytes(&to_bytes(&sums)), sums);
        assert!(checksums.mismatches(0, &bytes, &sums).is_empty());
        (sums[1], sums[2]) = (MISSING, sums[1]);
        assert_eq!(checksums.mismatches(0, &bytes, &sums), [1, 2]);
    }
}
