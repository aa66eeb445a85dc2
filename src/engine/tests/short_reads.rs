//! Short reads: at every 512 bytes of a file, and at every read.
//!
//! The kernel may end any read early. The next read then has to begin at a block, or O_DIRECT refuses
//! it, and no bytes may be lost or read twice.

use super::{Rig, loader, lock};
use crate::source::memory::Fault;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

const FILE_BYTES: usize = 1 << 20;
const CUT_BYTES: u64 = 512;

/// A file of 1 MiB whose data does not begin at a block, cut into several reads.
fn rig(block_bytes: usize) -> Rig {
    let data_offset = 3000;
    let sizes = [1, 300_001, 0, 90_000, FILE_BYTES - data_offset - 390_002];
    let rig = Rig::new(&sizes, data_offset, block_bytes);
    assert_eq!(rig.file.len(), FILE_BYTES);
    rig
}

/// The first attempt across each of `cuts` comes short exactly there, once; gives where it began.
fn cut_once(rig: &Rig, cuts: &[u64]) -> Vec<(u64, u64)> {
    let made = Arc::new(Mutex::new(Vec::new()));
    let (pending, making) = (Mutex::new(cuts.to_vec()), Arc::clone(&made));
    rig.script(move |_, at, len| {
        let mut pending = lock(&pending);
        let Some(hit) = pending.iter().position(|&cut| at < cut && cut < at + len as u64) else {
            return Fault::None;
        };
        let cut = pending.swap_remove(hit);
        lock(&making).push((cut, at));
        Fault::Short((cut - at) as usize)
    });
    rig.load_well(&loader());
    lock(&made).clone()
}

/// Every multiple of 512 in the file once, a load at a time with cuts in four different reads.
///
/// Fails when `advance` in `fill.rs` does not go back to the block's start: the next attempt is
/// then at the cut itself.
fn cut_at_every_512_bytes(block_bytes: usize) {
    let rig = rig(block_bytes);
    let block = block_bytes as u64;
    let quarter = FILE_BYTES as u64 / 4;
    for first in (CUT_BYTES..=quarter).step_by(CUT_BYTES as usize) {
        let cuts: Vec<u64> = (0..4).map(|part| first + part * quarter).collect();
        let made = cut_once(&rig, &cuts);
        let offsets: BTreeSet<u64> = rig.seen().iter().map(|seen| seen.offset).collect();
        // Where nothing whole was gained, the rest of the block is read through the page cache.
        let resumed: Vec<u64> = made
            .iter()
            .map(|&(cut, from)| {
                let aligned = cut / block * block;
                if aligned > from { aligned } else { cut }
            })
            .collect();
        // Some are crossed by no read: they lie in the header, or are where one ends.
        assert!(first % quarter == 0 || made.len() >= 3, "{made:?}");
        assert!(resumed.iter().all(|at| offsets.contains(at)), "{made:?}: {offsets:?}");
        let astray = offsets.iter().find(|at| *at % block != 0 && !resumed.contains(at));
        assert_eq!(astray, None, "{made:?}: an attempt not at a block");
    }
}

#[test]
fn a_read_cut_short_at_any_512_bytes_loses_nothing_with_blocks_of_1() {
    cut_at_every_512_bytes(1);
}

#[test]
fn a_read_cut_short_at_any_512_bytes_loses_nothing_with_blocks_of_512() {
    cut_at_every_512_bytes(512);
}

#[test]
fn a_read_cut_short_at_any_512_bytes_resumes_at_a_block_of_4096() {
    cut_at_every_512_bytes(4096);
}

#[test]
fn reads_that_always_come_short_still_bring_every_byte() {
    for block_bytes in [1, 512, 4096] {
        let rig = rig(block_bytes);
        for most in [512, 511, 513, 4095, 4097, 5000, 100_000] {
            rig.script(move |_, _, _| Fault::Short(most));
            rig.load_well(&loader());
            let seen = rig.seen();
            // At worst the part of a block is read twice.
            let bound = 2 * FILE_BYTES / most + 2 * FILE_BYTES / block_bytes.max(most) + 64;
            assert!(seen.len() <= bound, "{} attempts of {most} bytes", seen.len());
            if most >= block_bytes {
                let astray = seen.iter().find(|seen| seen.offset % block_bytes as u64 != 0);
                assert_eq!(astray, None, "blocks of {block_bytes}, reads of {most}");
            }
        }
    }
}

#[test]
fn one_byte_at_a_time_ends() {
    let rig = Rig::new(&[3000, 0, 2000], 4096 + 77, 4096);
    rig.script(|_, _, _| Fault::Short(1));
    rig.load_well(&loader());
}

/// All kinds of faults in random order, from a seed.
#[test]
fn short_reads_mixed_with_interruptions_and_a_downgrade_bring_every_byte() {
    for seed in 0..40 {
        let rig = Rig::mixed(4096);
        let mut random = crate::test_files::Random(seed);
        let mut refused = false;
        rig.script(move |_, _, len| match random.below(8) {
            0..3 => Fault::Short(1 + random.below(len.max(1))),
            3 => Fault::Errno([libc::EINTR, libc::EAGAIN, libc::ECANCELED][random.below(3)]),
            4 if !std::mem::replace(&mut refused, true) => Fault::Errno(libc::EINVAL),
            _ => Fault::None,
        });
        rig.load_well(&super::capped());
    }
}
