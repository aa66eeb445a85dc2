//! Loads that are dropped early release everything: descriptors, threads, and the caller's memory.

use crate::alone;
use crate::common::PATIENCE;
use crate::no_uring::without_io_uring;
use ringload::{Loader, MemoryLimit, Order, ReadPath, ReadRequest};
use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const TENSOR_BYTES: usize = 50_000;
const TENSORS: usize = 60;

/// A file of `TENSORS` tensors; tensor `i` is of bytes `i + 1`.
fn write_checkpoint(directory: &Path) -> PathBuf {
    let entry = |i: usize| {
        let (begin, end) = (i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES);
        format!(
            r#""t{i}":{{"dtype":"U8","shape":[{TENSOR_BYTES}],"data_offsets":[{begin},{end}]}}"#
        )
    };
    let header = format!("{{{}}}", (0..TENSORS).map(entry).collect::<Vec<_>>().join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..TENSORS).flat_map(|i| vec![i as u8 + 1; TENSOR_BYTES]));
    let path = directory.join("model.safetensors");
    fs::write(&path, file).unwrap();
    path
}

fn entries(directory: &str) -> Vec<String> {
    let read = fs::read_dir(directory).unwrap();
    read.filter_map(|entry| Some(entry.ok()?.path().to_string_lossy().into_owned())).collect()
}

/// Descriptors and threads of this process.
fn count() -> (usize, usize) {
    (entries("/proc/self/fd").len(), entries("/proc/self/task").len())
}

/// The resources of an idle process: the least number during a while, because a joined thread (also
/// one of the test before) may remain in /proc for a moment.
fn at_rest() -> (usize, usize) {
    let looks = (0..50).map(|_| {
        thread::sleep(Duration::from_millis(2));
        count()
    });
    let least = looks.reduce(|least, seen| (least.0.min(seen.0), least.1.min(seen.1)));
    least.unwrap()
}

/// Waits until there is no more than at rest.
#[track_caller]
fn returns_to(baseline: (usize, usize), what: &str) {
    let deadline = Instant::now() + PATIENCE;
    let more = |(descriptors, threads)| descriptors > baseline.0 || threads > baseline.1;
    while more(count()) {
        if Instant::now() > deadline {
            let open: Vec<_> = entries("/proc/self/fd").iter().map(fs::read_link).collect();
            panic!(
                "{what}: {:?} instead of {baseline:?} (descriptors, threads): {open:?}",
                count()
            );
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn rounds() -> u64 {
    if std::env::var_os("RINGLOAD_TEST_LONG").is_some() { 20_000 } else { 150 }
}

fn mix(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11
}

fn leave_early(path: &Path, seed: u64) {
    let random = mix(seed);
    let limits = [
        MemoryLimit::Unlimited,
        MemoryLimit::Unlimited,
        MemoryLimit::Min,
        MemoryLimit::Bytes(400_000),
    ];
    let limit = limits[(random % 4) as usize];
    let mut read_path = ReadPath::ALL[(random >> 2) as usize % 5];
    if limit != MemoryLimit::Unlimited && read_path == ReadPath::Mapped {
        read_path = ReadPath::Direct;
    }
    let order = [Order::Completion, Order::File][(random >> 4) as usize % 2].clone();
    let loader = Loader::new().engines(1 + (random >> 5) as usize % 2);
    let mut stream =
        loader.memory_limit(limit).read_path(read_path).order(order.clone()).stream(path).unwrap();
    let mut last = None;
    for _ in 0..(random >> 6) as usize % (TENSORS + 10) {
        last = None;
        let Some(tensor) = stream.next() else { break };
        last = Some(tensor.unwrap());
    }
    thread::sleep(Duration::from_micros((random >> 12) % 800));
    drop(stream);
    if let Some(tensor) = last {
        let expected = tensor.index() as u8 + 1;
        assert!(tensor.bytes() == [expected; TENSOR_BYTES], "seed {seed}");
    }
}

fn campaign(seeds: std::ops::Range<u64>) {
    let directory = tempfile::tempdir().unwrap();
    let path = write_checkpoint(directory.path());
    leave_early(&path, 0);
    let baseline = at_rest();
    for seed in seeds {
        leave_early(&path, seed);
        if seed % 10 == 0 {
            returns_to(baseline, &format!("after seed {seed}"));
        }
    }
    returns_to(baseline, "at the end");
}

#[test]
fn streams_dropped_at_any_instant_leak_neither_descriptors_nor_threads() {
    let _alone = alone();
    campaign(0..rounds());
}

#[test]
fn streams_dropped_without_io_uring_leak_neither_descriptors_nor_threads() {
    let _alone = alone();
    without_io_uring(|| campaign(100_000..100_000 + rounds() / 2));
}

#[test]
fn loads_that_fail_or_whose_callback_panics_leak_neither_descriptors_nor_threads() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = write_checkpoint(directory.path());
    leave_early(&path, 0);
    let baseline = at_rest();
    for round in 0..20 {
        let mut memory = vec![0; 1 << 20];
        let mut requests: Vec<_> = memory
            .chunks_mut(30_000)
            .zip((0..).step_by(30_000))
            .map(|(part, offset)| ReadRequest::new(path.as_path(), offset, part))
            .collect();
        let mut calls = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            Loader::new().read_into(&mut requests, |_| {
                calls += 1;
                assert!(calls <= round, "planted");
                ControlFlow::Continue(())
            })
        }));
        assert!(outcome.is_err());
        returns_to(baseline, "a callback that panics");

        // A consumer that holds everything.
        let loader = Loader::new()
            .memory_limit(MemoryLimit::Bytes(200_000))
            .hold_timeout(Duration::from_millis(20));
        let items: Vec<_> = loader.stream(path.as_path()).unwrap().collect();
        assert!(items.last().unwrap().is_err());
        drop(items);
        returns_to(baseline, "a consumer that holds everything");
    }
}
