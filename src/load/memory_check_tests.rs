//! A past bug: below `ulimit -v`, the refusal said that no memory limit would do where
//! `--memory-limit min` did, because it subtracted what a load needs besides its rings twice. And it
//! never named the number of engines, each of which takes 3 MiB of the address space.

use super::*;
use crate::options::MemoryLimit;
use crate::plan::{SlotSizes, TensorSizes};

const MIB: u64 = 1 << 20;

/// 100 tensors of 2 MiB.
fn sizes(limit: MemoryLimit) -> LoadSizes {
    let tensors = TensorSizes {
        host_largest_bytes: 2 * MIB,
        host_bytes: 200 * MIB,
        block_bytes: 4096,
        ..TensorSizes::default()
    };
    let host = SlotSizes { total_bytes: 200 * MIB, largest_bytes: 2 * MIB + 4096 };
    LoadSizes::new(limit, tensors).unwrap().with_slots(host, SlotSizes::default())
}

/// A limit of the address space that leaves `left_mib` beside a program of 20 MiB.
fn space(left_mib: u64) -> ProcessLimit {
    ProcessLimit {
        limit_bytes: (20 + left_mib) * MIB,
        left_bytes: left_mib * MIB,
        beside_bytes: BESIDE_BYTES,
        engine_bytes: ENGINE_BYTES,
        text: "ulimit -v".to_owned(),
    }
}

/// The number after `before` in `text`.
fn number(text: &str, before: &str) -> Option<u64> {
    let (_, rest) = text.split_once(before)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn what_is_named_fits_and_nothing_is_denied_that_would_fit() {
    let (mut limits, mut fewer, mut both, mut neither) = (0, 0, 0, 0);
    for left_mib in 0..300 {
        for engines in [1, 2, 16] {
            let space = space(left_mib);
            let Err(refused) = space.check(&sizes(MemoryLimit::Unlimited), engines) else {
                continue;
            };
            let told = refused.to_string();
            let named_limit = number(&told, "set a memory limit of ").map(|mib| mib * MIB);
            let named_engines =
                number(&told, "the option engines=").map(|engines| engines as usize);
            let least = sizes(MemoryLimit::Bytes(2 * MIB));
            let limited = |bytes| sizes(MemoryLimit::Bytes(bytes));
            match (named_limit, named_engines) {
                (Some(limit), None) => {
                    assert!(space.check(&limited(limit), engines).is_ok(), "{told}");
                    limits += 1;
                }
                (Some(limit), Some(named)) if told.contains(" and set a memory limit") => {
                    assert!(space.check(&limited(limit), named).is_ok(), "{told}");
                    assert!(space.check(&least, engines).is_err(), "{told}");
                    both += 1;
                }
                (limit, Some(named)) => {
                    assert!(space.check(&sizes(MemoryLimit::Unlimited), named).is_ok(), "{told}");
                    let fits =
                        limit.is_none_or(|bytes| space.check(&limited(bytes), engines).is_ok());
                    assert!(named < engines && fits, "{told}");
                    fewer += 1;
                }
                (None, None) => {
                    assert!(told.contains("no memory limit would do"), "{told}");
                    assert!(space.check(&least, 1).is_err(), "{left_mib} MiB: {told}");
                    neither += 1;
                }
            }
        }
    }
    assert!(
        limits > 50 && fewer > 20 && both > 20 && neither > 50,
        "{limits} {fewer} {both} {neither}"
    );
}

#[test]
fn the_limit_that_is_needed_at_least_suffices() {
    let told = space(10).check(&sizes(MemoryLimit::Unlimited), 4).unwrap_err().to_string();
    // 20 MiB of the program, 32 MiB and one engine beside the ring, a slot of 2 MiB and 2 blocks, and 4 MiB
    // for the next run.
    assert!(told.ends_with("raise the limit to at least 61.01 MiB (63971328 bytes)"), "{told}");
    let mut needed = space(10);
    (needed.left_bytes, needed.limit_bytes) = (59_777_024 - 20 * MIB, 59_777_024);
    assert!(needed.check(&sizes(MemoryLimit::Bytes(2 * MIB)), 1).is_ok());
    needed.left_bytes -= 8193;
    assert!(needed.check(&sizes(MemoryLimit::Bytes(2 * MIB)), 1).is_err());
}
