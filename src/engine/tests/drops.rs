//! Streams dropped at any instant, on a real file through the real backends.
//!
//! What must hold after each: the tensors that were kept are intact, nothing else of the ring is in
//! use, and once they are dropped its memory is gone. A read that completed into memory already
//! returned would be found by the ring's poison. `tests/process/drops.rs` counts descriptors and threads.

use super::loader;
use crate::checkpoint::Checkpoint;
use crate::load::Loader;
use crate::no_uring::without_io_uring;
use crate::options::{MemoryLimit, Order, ReadPath};
use crate::tensor::Tensor;
use crate::test_files::{Random, file_at, is_intact};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often; `RINGLOAD_TEST_LONG=1` asks for the long campaign.
fn rounds() -> u64 {
    if std::env::var_os("RINGLOAD_TEST_LONG").is_some() { 20_000 } else { 1000 }
}

fn sizes() -> Vec<usize> {
    (0..30).map(|i| (i * 104_729) % 150_000 * usize::from(i % 9 > 0)).collect()
}

fn pick(random: &mut Random) -> Loader {
    let limits = [MemoryLimit::Min, MemoryLimit::Bytes(300_000), MemoryLimit::Bytes(1 << 20)];
    let limit = match random.below(2) {
        0 => MemoryLimit::Unlimited,
        _ => limits[random.below(limits.len())],
    };
    let paths = [ReadPath::Direct, ReadPath::Direct, ReadPath::Auto, ReadPath::Buffered];
    loader()
        .memory_limit(limit)
        .read_path(paths[random.below(paths.len())])
        .order([Order::Completion, Order::File][random.below(2)].clone())
        .engines(1 + random.below(2))
}

/// Takes a random number of tensors, drops the stream at a random instant, checks what is left.
fn round(seed: u64, path: &Path, file: &[u8], driver: Option<&str>) {
    let mut random = Random(seed);
    let checkpoint = Arc::new(Checkpoint::open(path).unwrap());
    let total = checkpoint.tensors().len();
    let loader = pick(&mut random);
    let mut stream = loader.stream_checkpoint(checkpoint).unwrap();
    let ring = stream.ring();
    let capped = stream.summary().memory_limit_bytes.is_some();
    let mut kept: Vec<Tensor> = Vec::new();
    for _ in 0..random.below(total + total / 4) * random.below(2) {
        if capped || random.below(3) == 0 {
            kept.clear(); // a limit holds no more than the last
        }
        match stream.next() {
            Some(tensor) => kept.push(tensor.unwrap()),
            None => break,
        }
    }
    thread::sleep(Duration::from_micros(random.next() % 1500 * (random.next() % 2)));
    if let Some(driver) = driver {
        let used = stream.summary().backend;
        assert!(used == driver || used == "none", "seed {seed}: {used}");
    }
    drop(stream);

    for tensor in &kept {
        assert!(is_intact(tensor, &[file]), "seed {seed}: {} is wrong", tensor.name());
    }
    if let Some(ring) = ring.upgrade() {
        let held: BTreeSet<_> = kept.iter().map(|t| t.bytes().as_ptr() as usize >> 12).collect();
        assert!(ring.usage().slots <= held.len(), "seed {seed}: slots leaked");
    }
    drop(kept);
    assert!(ring.upgrade().is_none(), "seed {seed}: the ring's memory leaked");
}

fn campaign(first_seed: u64, rounds: u64, driver: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let file = file_at("t", &sizes(), 0);
    std::fs::write(&path, &file).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    for seed in first_seed..first_seed + rounds {
        round(seed, &path, &file, driver);
    }
}

#[test]
fn a_stream_dropped_at_any_instant_leaks_no_memory_and_harms_no_kept_tensor() {
    campaign(1, rounds() * 7 / 10, None);
}

#[test]
fn a_stream_dropped_at_any_instant_without_io_uring_is_as_harmless() {
    let rounds = rounds() * 3 / 10;
    without_io_uring(|| campaign(1_000_000, rounds, Some("pread")));
}

#[test]
fn without_io_uring_a_load_says_so_and_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let file = file_at("t", &sizes(), 0);
    std::fs::write(&path, &file).unwrap();
    without_io_uring(|| {
        for read_path in [ReadPath::Direct, ReadPath::Buffered] {
            let mut stream = loader().read_path(read_path).stream(path.as_path()).unwrap();
            let outcome = super::drain(&mut stream, &file);
            assert!(outcome.error.is_none(), "{:?}", outcome.error);
            assert_eq!((outcome.tensors, outcome.summary.backend), (sizes().len(), "pread"));
            let step = &outcome.summary.downgrades[0];
            assert_eq!((step.from, step.to), ("uring", "pread"));
            assert!(step.why.contains("forbidden here"), "{}", step.why);
        }
    });
}
