//! Loads of short slices: they are read together, and each is what it would be by itself.

use super::slices_tests::{scene, scene_of};
use crate::cast::Cast;
use crate::options::Order;
use crate::{Dtype, Loader, MemoryLimit, Slice, Slices, Tensor};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Loads `slice` of `count` tensors of `bytes` bytes each, in rows of 64 bytes, with and without a cast.
/// Returns for each of the two loads how many reads it made, how many bytes it read, and how many reads of
/// each part would read.
fn read_for(
    (count, bytes): (usize, usize),
    slice: &Slice,
    is_remote: bool,
) -> [(u64, u64, u64); 2] {
    let rows = bytes / 64;
    let tensors: Vec<_> = (0..count).map(|_| ("BF16", Dtype::BF16, vec![rows, 32])).collect();
    let scene = scene_of(&tensors, 4096, is_remote);
    let slices = Slices::default().with("*", slice.clone()).unwrap();
    [None, Some(Dtype::F32)].map(|dtype| {
        scene.reads.store(0, Ordering::Relaxed);
        scene.read_bytes.store(0, Ordering::Relaxed);
        let mut loader = Loader::new().slices(slices.clone());
        if let Some(dtype) = dtype {
            loader = loader.dtype(dtype);
        }
        let loaded = loader.load_checkpoint(Arc::clone(&scene.checkpoint)).unwrap();
        assert_eq!(loaded.len(), count);
        let runs = slice.of(&[rows, 32], 16).unwrap().runs;
        let mut alone = 0;
        for tensor in &loaded {
            let start = tensor.info().offset_bytes();
            let first = start + runs.first_bytes();
            alone += (first + runs.range_bytes()).next_multiple_of(4096) - first / 4096 * 4096;
            let run = |at: u64| &scene.file[(start + at) as usize..][..runs.run_bytes() as usize];
            let mut expected: Vec<u8> = runs.offsets().flat_map(run).copied().collect();
            if let Some(cast) = dtype.and_then(|to| Cast::new(Dtype::BF16, to)) {
                let mut into = vec![0; 2 * expected.len()];
                cast.run(&expected, &mut into);
                expected = into;
            }
            assert!(tensor.bytes() == expected, "{}", tensor.name());
        }
        let read = scene.read_bytes.load(Ordering::Relaxed);
        let planned = loader.planned(&scene.checkpoint).unwrap();
        let planned: u64 = planned.iter().map(|tensor| tensor.read_bytes).sum();
        let reads = scene.reads.load(Ordering::Relaxed);
        assert!((planned..=planned + reads * 2 * 4096).contains(&read), "{planned} {read}");
        (reads, read, alone)
    })
}

/// Short parts take few reads, and no more bytes than twice those of reads of their own. From a store,
/// where requests cost more, longer gaps are read.
#[test]
fn short_parts_that_are_near_each_other_are_read_together() {
    let part = |dim, world| Slice::share(dim, 1, world);
    let (local, remote) = (false, true);
    for (of, slice, is_remote, is_joined) in [
        ((400, 16 << 10), part(0, 2), local, true),
        ((400, 32 << 10), part(0, 4), local, false),
        ((400, 32 << 10), part(0, 4), remote, true),
        ((400, 2 << 10), part(0, 8), local, true), // gaps within a block
        ((400, 16 << 10), part(1, 8), local, true),
        ((9, 96 << 10), part(0, 2), local, false),
        ((9, 96 << 10), part(0, 2), remote, true),
        ((9, 160 << 10), part(0, 2), remote, false),
    ] {
        for (reads, bytes, alone) in read_for(of, &slice, is_remote) {
            let case = format!("{of:?} {slice}: {reads} reads, {bytes} bytes, alone {alone}");
            match is_joined {
                true => assert!(reads <= 8 && bytes <= (of.0 * of.1) as u64 + 8192, "{case}"),
                false => assert!(reads == of.0 as u64 && bytes <= alone, "{case}"),
            }
            assert!(bytes <= 2 * alone + 8192 || is_remote, "{case}");
        }
    }
}

/// Packing needs memory for what is read and for what is kept. Where a limit does not have it, parts are
/// read one by one.
#[test]
fn a_limit_of_the_largest_part_suffices_for_short_parts() {
    let tensors: Vec<_> = (0..50).map(|_| ("U8", Dtype::U8, vec![2, 8192])).collect();
    let scene = scene(&tensors, 4096);
    for limit in [8192, 40_000, 200_000] {
        let slices = Slices::default().with("*", Slice::share(0, 1, 2)).unwrap();
        let loader = Loader::new().slices(slices).memory_limit(MemoryLimit::Bytes(limit));
        let mut stream = loader.stream_checkpoint(Arc::clone(&scene.checkpoint)).unwrap();
        for number in 0..50 {
            let tensor = stream.next().unwrap().unwrap();
            let start = tensor.info().offset_bytes() as usize + 8192;
            assert!(tensor.bytes() == &scene.file[start..start + 8192], "{number}");
        }
        assert!(stream.next().is_none());
        assert!(stream.summary().ring_bytes <= limit + 2 * 4096);
    }
}

/// Whatever the order and the limit, also where what is read together is not asked for together.
#[test]
fn short_parts_are_yielded_in_any_order() {
    let shapes = [[64, 128], [128, 16], [64, 100], [100, 1]];
    let tensors: Vec<_> =
        (0..120).map(|at| ("BF16", Dtype::BF16, shapes[at % 4].to_vec())).collect();
    let scene = scene(&tensors, 4096);
    let slices = Slices::default().with("*[0-8]", Slice::share(0, 1, 2)).unwrap();
    let mut order: Vec<String> = (0..tensors.len()).map(|at| format!("t{at}")).collect();
    let check = |tensor: &Tensor| {
        let is_part = !tensor.name().ends_with('9');
        let info = tensor.info();
        let start = info.offset_bytes() as usize;
        let whole = &scene.file[start..start + info.len_bytes() as usize];
        assert!(tensor.bytes() == &whole[if is_part { whole.len() / 2 } else { 0 }..]);
    };
    for seed in 0..8 {
        fastrand::Rng::with_seed(seed).shuffle(&mut order[..[7, 120][seed as usize % 2]]);
        for limit in [MemoryLimit::Unlimited, MemoryLimit::Min, MemoryLimit::Bytes(100_000)] {
            let loader = Loader::new().slices(slices.clone()).memory_limit(limit);
            let ordered = loader.clone().order(Order::Names(order.clone().into()));
            let mut stream = ordered.stream_checkpoint(Arc::clone(&scene.checkpoint)).unwrap();
            for name in &order {
                let tensor = stream.next().unwrap().unwrap();
                assert_eq!(tensor.name(), name);
                check(&tensor);
            }
            let named = loader.by_name_checkpoint(Arc::clone(&scene.checkpoint)).unwrap();
            order.iter().for_each(|name| check(&named.get(name).unwrap()));
        }
    }
}
