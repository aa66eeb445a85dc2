//! Casts during a load: the slot that was read returns to the ring at once, also if reads misbehave or
//! the load ends early.

use super::{Rig, loader, without_hanging};
use crate::cast::Cast;
use crate::dtype::Dtype;
use crate::options::{MemoryLimit, Order};
use crate::source::memory::Fault;
use crate::tensor::Tensor;
use crate::test_files::{Random, float_file};
use std::sync::Arc;
use std::time::Duration;

const STORED_BYTES: usize = 40_000;
const CAST_BYTES: usize = STORED_BYTES / 2;

fn floats(count: usize) -> Rig {
    Rig::of(float_file(&vec![("F32", STORED_BYTES); count]), 4096)
}

fn is_cast(rig: &Rig, tensor: &Tensor) -> bool {
    let start = tensor.info().offset_bytes() as usize;
    let mut expected = vec![0; CAST_BYTES];
    let cast = Cast::new(Dtype::F32, Dtype::BF16).unwrap();
    cast.run(&rig.file[start..][..STORED_BYTES], &mut expected);
    tensor.dtype() == Dtype::BF16 && tensor.bytes() == expected
}

#[test]
fn what_was_read_is_free_as_soon_as_it_is_cast() {
    without_hanging(|| {
        let rig = floats(24);
        // Room for all results and a few that are being read; never for all as stored, nor for
        // results that each keep what they were read into.
        let limit = 200 * 4096;
        assert!(24 * CAST_BYTES + 3 * STORED_BYTES < limit && limit < 24 * STORED_BYTES);
        let loader = loader()
            .dtype(Dtype::BF16)
            .memory_limit(MemoryLimit::Bytes(limit as u64))
            .hold_timeout(Duration::from_millis(500));
        let mut stream = rig.stream(&loader);
        let held: Vec<Tensor> = stream.by_ref().map(|tensor| tensor.unwrap()).collect();
        assert_eq!(held.len(), 24);
        assert!(held.iter().all(|tensor| is_cast(&rig, tensor)));
        let usage = stream.ring().upgrade().unwrap().usage();
        assert!(usage.bytes <= 24 * 5 * 4096, "{usage:?}");
        drop(held);
        assert_eq!(stream.ring().upgrade().unwrap().usage().slots, 0);
    });
}

#[test]
fn reads_that_come_in_parts_are_cast_as_a_whole() {
    let rig = floats(12);
    let mut random = Random(11);
    rig.script(move |_, _, len| match random.below(3) {
        0 => Fault::Short(1 + random.below(len)),
        1 => Fault::Errno(libc::EINTR),
        _ => Fault::None,
    });
    for order in [Order::Completion, Order::File] {
        for limit in [MemoryLimit::Unlimited, MemoryLimit::Min] {
            let loader =
                loader().dtype(Dtype::BF16).memory_limit(limit).order(order.clone()).engines(2);
            let mut stream = rig.stream(&loader);
            let mut count = 0;
            for tensor in stream.by_ref() {
                assert!(is_cast(&rig, &tensor.unwrap()));
                count += 1;
            }
            assert_eq!((count, stream.summary().cast_tensors), (12, 12));
        }
    }
}

#[test]
fn a_load_that_ends_in_the_middle_gives_all_memory_back() {
    for taken in [0, 1, 5] {
        let rig = floats(24);
        let loader = loader().dtype(Dtype::BF16).memory_limit(MemoryLimit::Bytes(400_000));
        let mut stream = rig.stream(&loader);
        let held: Vec<Tensor> = stream.by_ref().take(taken).map(|t| t.unwrap()).collect();
        let ring = stream.ring();
        drop(stream);
        assert!(held.iter().all(|tensor| is_cast(&rig, tensor)));
        drop(held);
        assert!(ring.upgrade().is_none(), "the ring's memory leaked");
    }
}

#[test]
fn a_failed_read_ends_the_load_and_leaves_nothing_half_cast() {
    let rig = floats(24);
    rig.script(|number, _, _| if number == 15 { Fault::Errno(libc::EIO) } else { Fault::None });
    let loader = loader().dtype(Dtype::BF16).memory_limit(MemoryLimit::Bytes(400_000));
    let mut stream = rig.stream(&loader);
    let mut failed = false;
    for item in stream.by_ref() {
        match item {
            Ok(tensor) => assert!(is_cast(&rig, &tensor)),
            Err(_) => failed = true,
        }
    }
    assert!(failed);
    let ring = stream.ring();
    drop(stream);
    assert!(Arc::strong_count(&rig.file) > 0 && ring.upgrade().is_none());
}
