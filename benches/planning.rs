//! Opening and planning a very large checkpoint: a million tensors in 500 shards.
//!
//! The shards are sparse files, of which only the headers are read. Opening and planning together
//! should take at most two seconds.

#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use ringload::internals::{Plan, Selection};
use ringload::{Checkpoint, DeviceMap, Dtype, MemoryLimit};
use ringload_measure::checkpoint::{Tensor, shard_name, write_sparse};
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SHARDS: usize = 500;
const TENSORS_PER_SHARD: usize = 2000;

fn planning(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("the temporary directory can be written");
    write_checkpoint(directory.path()).expect("the temporary directory can be written");
    let open = || Checkpoint::open(directory.path()).expect("the checkpoint is valid");
    let map = DeviceMap::default();
    let plan = |checkpoint| {
        Plan::new(checkpoint, MemoryLimit::Unlimited, &Selection::default(), &map, None)
            .expect("all tensors can be planned")
    };
    let mut group = c.benchmark_group("1,000,000 tensors in 500 shards");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("open", |b| b.iter_with_large_drop(open));
    let checkpoint = Arc::new(open());
    group.bench_function("plan", |b| {
        b.iter_with_large_drop(|| plan(Arc::clone(black_box(&checkpoint))));
    });
    drop(checkpoint);
    group.bench_function("open and plan", |b| {
        b.iter_with_large_drop(|| plan(Arc::new(open())));
    });
    group.finish();
}

fn write_checkpoint(directory: &Path) -> io::Result<()> {
    for number in 0..SHARDS {
        let name = |expert| format!("model.layers.{number}.mlp.experts.{expert}.down_proj.weight");
        let tensors: Vec<_> = (0..TENSORS_PER_SHARD)
            .map(|expert| Tensor::new(name(expert), Dtype::BF16, &[64, 64]))
            .collect();
        write_sparse(&directory.join(shard_name(number, SHARDS)), &tensors)?;
    }
    Ok(())
}

criterion_group!(benches, planning);
criterion_main!(benches);
