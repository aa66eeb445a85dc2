//! Loading many small tensors: 200,000 of 4 KiB in one file that the page cache holds.
//!
//! This compares `Loader::load`, which opens, plans, reads and hands out every tensor, with a plain
//! `std::fs::read` of the same file. A load should take at most twice as long. The ratio is printed at
//! the end, as the median of pairs that are measured one after the other.

#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringload::{Loaded, Loader};
use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

const TENSORS: usize = 200_000;
/// 1024 elements of F32.
const TENSOR_BYTES: usize = 4096;
const PAIRS: usize = 11;
const TARGET: f64 = 2.0;

fn tiny_tensors(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("the temporary directory can be written");
    let path = directory.path().join("model.safetensors");
    write_checkpoint(&path).expect("the temporary directory can be written");
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
    let mut ratios: Vec<_> = (0..PAIRS).map(|_| seconds(&load) / seconds(&read)).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[PAIRS / 2];
    let verdict = if median <= TARGET { "pass" } else { "FAIL" };
    println!(
        "load / read: {median:.2} ({:.2} to {:.2} in {PAIRS} pairs), to be at most {TARGET}: {verdict}",
        ratios[0],
        ratios[PAIRS - 1]
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

fn write_checkpoint(path: &Path) -> io::Result<()> {
    let mut header = String::from("{");
    for tensor in 0..TENSORS {
        let comma = if tensor == 0 { "" } else { "," };
        let (start, end) = (tensor * TENSOR_BYTES, (tensor + 1) * TENSOR_BYTES);
        write!(
            header,
            r#"{comma}"adapters.{tensor}.lora.weight":{{"dtype":"F32","shape":[1024],"data_offsets":[{start},{end}]}}"#
        )
        .map_err(io::Error::other)?;
    }
    header.push('}');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for tensor in 0..TENSORS {
        file.write_all(&[tensor as u8; TENSOR_BYTES])?;
    }
    file.into_inner()?.sync_all()
}

criterion_group!(benches, tiny_tensors);
criterion_main!(benches);
