//! CRCs of byte ranges, and the CRC of concatenated ranges computed from the CRCs of the parts. The
//! combination serves objects whose ranges arrive out of order, and tensors that a GPU checks in
//! pieces.
//!
//! The CRC of two concatenated byte strings is the CRC of the first, shifted by the length of the
//! second, plus the CRC of the second. Shifting by `n` bytes is a multiplication by x^8n modulo the
//! CRC's polynomial: 25 squarings for a range of 8 MiB, which take a few microseconds.
//! (`checksum_combine` of crc-fast squares matrices instead. That takes 0.4 ms for a CRC-64, or
//! 0.1 s for each GB that arrives out of order.)

use crc_fast::CrcAlgorithm;
use std::collections::HashMap;

/// Returns the CRC-64/NVME of `bytes`, which object stores keep as `x-amz-checksum-crc64nvme`.
///
/// ```
/// assert_eq!(ringload::internals::crc64_nvme(b"123456789"), 0xAE8B_1486_0A79_9888);
/// ```
pub fn crc64_nvme(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// Returns the CRC-64/NVME of the concatenated `parts`, each given by its CRC and its length in
/// bytes. This is fastest when many parts have the same length.
///
/// ```
/// use ringload::internals::{crc64_nvme, crc64_nvme_of_parts};
///
/// let parts = [(crc64_nvme(b"1234"), 4), (crc64_nvme(b"56789"), 5)];
/// assert_eq!(crc64_nvme_of_parts(parts), crc64_nvme(b"123456789"));
/// ```
pub fn crc64_nvme_of_parts(parts: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    let crc = Crc::CRC64_NVME;
    let (mut known_bytes, mut power) = (0, crc.x(0));
    let mut powers: HashMap<u64, u64> = HashMap::new();
    parts.into_iter().fold(0, |left, (right, right_bytes)| {
        if right_bytes != known_bytes {
            power = *powers.entry(right_bytes).or_insert_with(|| crc.power(right_bytes));
            known_bytes = right_bytes;
        }
        crc.product(left, power) ^ right
    })
}

/// The parameters of a CRC with reflected bits and an inverted initial and final register.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc {
    pub algorithm: CrcAlgorithm,
    bits: u32,
    /// The reflected polynomial without its highest power.
    polynomial: u64,
}

impl Crc {
    pub const CRC64_NVME: Self =
        Self { algorithm: CrcAlgorithm::Crc64Nvme, bits: 64, polynomial: 0x9A6C_9329_AC4B_C9B5 };
    pub const CRC32C: Self =
        Self { algorithm: CrcAlgorithm::Crc32Iscsi, bits: 32, polynomial: 0x82F6_3B78 };
    pub const CRC32: Self =
        Self { algorithm: CrcAlgorithm::Crc32IsoHdlc, bits: 32, polynomial: 0xEDB8_8320 };

    /// Returns the CRC of a string with CRC `left` followed by `right_bytes` bytes with CRC `right`.
    pub fn combined(self, left: u64, right: u64, right_bytes: u64) -> u64 {
        self.product(left, self.power(right_bytes)) ^ right
    }

    /// Returns x^`exponent`.
    const fn x(self, exponent: u32) -> u64 {
        1 << (self.bits - 1 - exponent)
    }

    /// Returns x^(8 * `bytes`) modulo the polynomial.
    fn power(self, bytes: u64) -> u64 {
        let (mut power, mut square, mut left) = (self.x(0), self.x(8), bytes);
        while left > 0 {
            if left & 1 == 1 {
                power = self.product(power, square);
            }
            square = self.product(square, square);
            left >>= 1;
        }
        power
    }

    /// Returns `a` * `b` modulo the polynomial.
    fn product(self, a: u64, mut b: u64) -> u64 {
        let mut product = 0;
        for exponent in 0..self.bits {
            if a & self.x(exponent) != 0 {
                product ^= b;
            }
            b = (b >> 1) ^ (self.polynomial & (b & 1).wrapping_neg());
        }
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parts_put_together_have_the_crc_of_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            cuts in proptest::collection::vec(0_usize..5000, 0..6),
            every in 1_usize..700,
        ) {
            let whole = crc64_nvme(&bytes);
            let mut ends: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let parts = starts.zip(&ends).map(|(start, &end)| &bytes[start..end]);
            let sums = |part: &[u8]| (crc64_nvme(part), part.len() as u64);
            prop_assert_eq!(crc64_nvme_of_parts(parts.map(sums)), whole);
            prop_assert_eq!(crc64_nvme_of_parts(bytes.chunks(every).map(sums)), whole);
        }
    }
}
