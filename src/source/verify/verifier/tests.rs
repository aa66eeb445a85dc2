//! Sums of ranges in any order against sums of the whole.

use super::*;
use crate::test_files::Random;
use proptest::prelude::*;
use std::ops::Range;

const ALGORITHMS: [fn(&[u8]) -> Checksum; 3] = [
    |bytes| Checksum::Crc64Nvme(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)),
    |bytes| Checksum::Crc32c(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32),
    |bytes| Checksum::Crc32(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32),
];

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

fn sha256(bytes: &[u8]) -> Checksum {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Checksum::Sha256(digest.as_ref().try_into().unwrap())
}

fn check(bytes: &[u8], expected: Checksum) -> ChecksumVerifier {
    ChecksumVerifier::new(
        Location::from(std::path::Path::new("object")),
        bytes.len() as u64,
        ExpectedSum::of_store(expected),
    )
    .unwrap()
}

/// The ranges between `cuts` of `0..len`.
fn ranges(len: usize, mut cuts: Vec<usize>) -> Vec<Range<usize>> {
    cuts.extend([0, len]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    fastrand::Rng::with_seed(seed).shuffle(&mut items);
    items
}

/// Gives `range` of `bytes` in pieces, as they come from a socket.
fn give(check: &ChecksumVerifier, bytes: &[u8], range: Range<usize>) -> Result<()> {
    let mut digest = check.digest();
    bytes[range.clone()].chunks(777).for_each(|piece| digest.update(piece));
    let saw = check.add_range(range.start as u64, &bytes[range], &digest);
    futures_util::FutureExt::now_or_never(saw).expect("a CRC waits for nothing")
}

fn spans_of(check: &ChecksumVerifier) -> usize {
    match &check.covered {
        Covered::Crc(_, spans) => spans.lock().len(),
        Covered::Sha(_) => 0,
    }
}

proptest! {
    #[test]
    fn ranges_in_any_order_sum_up_to_the_whole(
        len in 1_usize..40_000,
        cuts in proptest::collection::vec(0_usize..40_000, 0..40),
        seed: u64,
        again in proptest::collection::vec(0_usize..40, 0..5),
    ) {
        let bytes = noise(seed, len);
        let cuts = cuts.into_iter().map(|cut| cut % len).collect();
        for sum in ALGORITHMS {
            let check = check(&bytes, sum(&bytes));
            let mut order = shuffled(ranges(len, Clone::clone(&cuts)), seed);
            // Ranges that come again, at once and at the end, count once.
            let repeated: Vec<_> = again.iter().map(|i| order[i % order.len()].clone()).collect();
            let last = order.pop().unwrap();
            for range in order.iter().chain(&repeated).filter(|&range| *range != last) {
                give(&check, &bytes, range.clone()).unwrap();
                prop_assert!(!check.is_verified());
                prop_assert!(spans_of(&check) <= order.len());
            }
            give(&check, &bytes, last).unwrap();
            prop_assert!(check.is_verified());
            prop_assert_eq!(spans_of(&check), 1);
            for range in repeated {
                give(&check, &bytes, range).unwrap();
            }
            prop_assert!(check.is_verified());
        }
    }

    #[test]
    fn one_flipped_bit_is_found_by_whoever_completes_the_object(
        len in 1_usize..20_000,
        cuts in proptest::collection::vec(0_usize..20_000, 0..20),
        flip: proptest::sample::Index,
        bit in 0_u32..8,
        seed: u64,
    ) {
        let bytes = noise(seed, len);
        let mut damaged = bytes.clone();
        damaged[flip.index(len)] ^= 1 << bit;
        let cuts: Vec<_> = cuts.into_iter().map(|cut| cut % len).collect();
        for sum in ALGORITHMS.into_iter().chain([sha256 as fn(&[u8]) -> Checksum]) {
            let check = check(&bytes, sum(&bytes));
            let mut order = ranges(len, cuts.clone());
            if !matches!(check.covered, Covered::Sha(_)) {
                order = shuffled(order, seed);
            }
            let last = order.pop().unwrap();
            for range in order {
                give(&check, &damaged, range).unwrap();
            }
            let error = give(&check, &damaged, last).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
            prop_assert!(!check.is_verified());
            for wanted in ["object is corrupt", check.expected.checksum.algorithm(), &(check.expected.notation)(&check.expected.checksum), "upload"] {
                prop_assert!(error.to_string().contains(wanted), "{}", error);
            }
        }
    }
}

/// What the catalogue of CRCs, and FIPS 180, give for these nine bytes.
#[test]
fn checksums_are_those_of_the_standards() {
    let bytes = b"123456789";
    for (expected, text) in [
        (Checksum::Crc64Nvme(0xAE8B_1486_0A79_9888), "rosUhgp5mIg="),
        (Checksum::Crc32c(0xE306_9283), "4waSgw=="),
        (Checksum::Crc32(0xCBF4_3926), "y/Q5Jg=="),
        (sha256(bytes), "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ] {
        let check = check(bytes, expected);
        for range in ranges(9, vec![3, 5]) {
            give(&check, bytes, range).unwrap();
        }
        assert!(check.is_verified());
        assert_eq!((check.expected.notation)(&expected), text);
    }
}

/// A hole of a byte, wherever it is, is never taken for the whole.
#[test]
fn what_is_not_whole_is_not_right() {
    let bytes = noise(1, 1000);
    for hole in 0..1000 {
        let check = check(&bytes, ALGORITHMS[0](&bytes));
        for range in [0..hole, hole + 1..1000] {
            give(&check, &bytes, range).unwrap();
        }
        assert!(!check.is_verified());
        give(&check, &bytes, hole..hole + 1).unwrap();
        assert!(check.is_verified());
    }
}

#[test]
fn every_load_starts_from_what_opening_has_seen() {
    let bytes = noise(2, 5000);
    for expected in [ALGORITHMS[0](&bytes), sha256(&bytes)] {
        let opening = check(&bytes, expected);
        for header in [0..8, 8..100, 0..8] {
            opening.add(header.start as u64, &bytes[header]).unwrap();
        }
        for _ in 0..2 {
            let load = opening.for_load();
            assert!(!load.is_verified());
            give(&load, &bytes, 100..5000).unwrap();
            assert!(load.is_verified() && !opening.is_verified());
        }
        let mut damaged = bytes.clone();
        damaged[4999] ^= 1;
        assert!(give(&opening.for_load(), &damaged, 100..5000).is_err());
    }
}

/// As many readers as ranges, on two runtimes, which come in any order: each waits for those before.
#[test]
fn sha256_takes_ranges_in_order_whatever_order_they_come_in() {
    let bytes = Arc::new(noise(3, 100_000));
    for seed in 0..30 {
        let check = Arc::new(check(&bytes, sha256(&bytes)));
        let mut cuts = fastrand::Rng::with_seed(seed);
        let cuts = (0..40).map(|_| cuts.usize(..bytes.len())).collect();
        let order = shuffled(ranges(bytes.len(), cuts), seed);
        let engines: Vec<_> = (0..2)
            .map(|engine| {
                let (check, bytes) = (Arc::clone(&check), Arc::clone(&bytes));
                let mine: Vec<_> = order.iter().skip(engine).step_by(2).cloned().collect();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let mut readers = tokio::task::JoinSet::new();
                    for range in mine {
                        let (check, bytes) = (Arc::clone(&check), Arc::clone(&bytes));
                        let reader = async move {
                            let digest = check.digest();
                            let (start, bytes) = (range.start as u64, &bytes[range]);
                            check.add_range(start, bytes, &digest).await.unwrap();
                        };
                        readers.spawn_on(reader, runtime.handle());
                    }
                    runtime.block_on(readers.join_all());
                })
            })
            .collect();
        engines.into_iter().for_each(|engine| engine.join().unwrap());
        assert!(check.is_verified());
    }
}
