//! Loading many small tensors: 200,000 of 4 KiB in one file that the page cache holds.
//!
//! This compares `Loader::load`, which opens, plans, reads and hands out every tensor, with a plain
//! `std::fs::read` of the same file. A load should take at most twice as long. The ratio is printed at
//! the end, as the median of pairs that are measured one after the other.

#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringload::{Dtype, Loaded, Loader};
use ringload_measure::checkpoint::{self, Tensor};
use ringload_measure::stats::{Estimate, estimate};
use std::hint::black_box;
use std::time::{Duration, Instant};

const TENSORS: usize = 200_000;
const TENSOR_BYTES: usize = 4096;
const PAIRS: usize = 11;
const TARGET: f64 = 2.0;

fn tiny_tensors(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("the temporary directory can be written");
    let path = directory.path().join("model.safetensors");
    let tensor = |number| {
        Tensor::new(format!("adapters.{number}.lora.weight"), Dtype::F32, &[TENSOR_BYTES / 4])
    };
    let tensors: Vec<_> = (0..TENSORS).map(tensor).collect();
    checkpoint::write(&path, &tensors, 0, |_, _| ())
        .expect("the temporary directory can be written");
    let read = || std::fs::read(&path).expect("the file was just written");
    let load = || Loader::new().load(&path).expect("the checkpoint is valid");
    black_box(read());

    let mut group = c.benchmark_group("200,000 tensors of 4 KiB, warm");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Bytes((TENSORS * TENSOR_BYTES) as u64));
    group.bench_function("std::fs::read", |b| b.iter_with_large_drop(read));
    group.bench_function("Loader::load", |b| b.iter_with_large_drop(load));
    group.finish();
    print_ratio(read, load);
}

fn print_ratio(read: impl Fn() -> Vec<u8>, load: impl Fn() -> Loaded) {
    let ratios: Vec<_> = (0..PAIRS).map(|_| seconds(&load) / seconds(&read)).collect();
    let Some(Estimate { median, low, high, .. }) = estimate(&ratios) else { return };
    let outcome = if median <= TARGET { "pass" } else { "FAIL" };
    println!(
        "load / read: {median:.2} ({low:.2} to {high:.2} in {PAIRS} pairs), to be at most {TARGET}: \
         {outcome}"
    );
}

/// How long `work` takes, without dropping its result.
fn seconds<T>(work: impl Fn() -> T) -> f64 {
    let began = Instant::now();
    let made = black_box(work());
    let seconds = began.elapsed().as_secs_f64();
    drop(made);
    seconds
}

criterion_group!(benches, tiny_tensors);
criterion_main!(benches);
