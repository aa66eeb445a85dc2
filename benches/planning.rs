//! Opening and planning a very large checkpoint: a million tensors in 500 shards.
//!
//! The shards are sparse files, of which only the headers are read. Opening and planning together
//! should take at most two seconds.

#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use ringload::internals::{Plan, Selection};
use ringload::{Checkpoint, DeviceMap, MemoryLimit};
use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SHARDS: usize = 500;
const TENSORS_PER_SHARD: usize = 2000;
/// 64 x 64 elements of BF16.
const TENSOR_BYTES: usize = 8192;

fn planning(c: &mut Criterion) {
    let directory = write_checkpoint().expect("the temporary directory can be written");
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

fn write_checkpoint() -> io::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    for number in 0..SHARDS {
        write_shard(directory.path(), number)?;
    }
    Ok(directory)
}

fn write_shard(directory: &Path, number: usize) -> io::Result<()> {
    let mut header = String::from("{");
    for tensor in 0..TENSORS_PER_SHARD {
        let comma = if tensor == 0 { "" } else { "," };
        let (start, end) = (tensor * TENSOR_BYTES, (tensor + 1) * TENSOR_BYTES);
        write!(
            header,
            r#"{comma}"model.layers.{number}.mlp.experts.{tensor}.down_proj.weight":{{"dtype":"BF16","shape":[64,64],"data_offsets":[{start},{end}]}}"#
        )
        .map_err(io::Error::other)?;
    }
    header.push('}');
    let name = format!("model-{:05}-of-{SHARDS:05}.safetensors", number + 1);
    let mut file = File::create(directory.join(name))?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.set_len((8 + header.len() + TENSORS_PER_SHARD * TENSOR_BYTES) as u64)
}

criterion_group!(benches, planning);
criterion_main!(benches);
