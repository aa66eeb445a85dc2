//! Whole processes, as users see them; all are children of this executable.
//!
//! A small model, from the start of a process to its last tensor, is compared with a process that
//! creates a context, reads the file into a vector and copies it to the GPU, one step after the
//! other; the file is in the page cache. The large checkpoint has no target.

use super::{Large, Part, each, make_warm, size};
use crate::checkpoints::Written;
use crate::children::{Of, Run, run_load, run_plain};
use crate::record::Recorder;
use anyhow::Result;
use ringload::Dtype;
use ringload_measure::checkpoint::Tensor;
use ringload_measure::stats::{Bound, ratios};

const MOST: f64 = 1.25;
/// The rank of the adapter, and the width of the model to which it belongs.
const DIMENSIONS: [usize; 2] = [64, 4096];

pub fn adapter(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let written = Written::new(part.places.disk(), "adapter", vec![tensors(part.args.adapter)])?;
    make_warm(&written.files)?;
    let what = format!("an adapter of {}", size(written.bytes()));
    let (mut loads, mut plains) = (Vec::new(), Vec::new());
    for turn in part.clock.take() {
        loads.push(run_load(part.places, &written.files, turn == 0)?);
        plains.push(run_plain(part.places, &written.files[0])?);
        record_adapter(recorder, &what, &loads, &plains);
    }
    Ok(())
}

fn record_adapter(recorder: &mut Recorder, what: &str, loads: &[Run], plains: &[Run]) {
    let of = |runs: &[Run], figure: Of| each(runs, |run| figure(run) * 1e3);
    let (load, plain) = (of(loads, Run::seconds), of(plains, Run::seconds));
    recorder.add(format!("process start to last tensor of {what}"), "ms", &load, None);
    recorder.add("process start to plain copy", "ms", &plain, None);
    let parts: [(&str, Of); 3] = [
        ("context creation, from main()", |run| run.parts.context_seconds),
        ("plain read", |run| run.parts.read_seconds),
        ("plain copy", |run| run.parts.copy_seconds),
    ];
    for (name, figure) in parts {
        recorder.add(name, "ms", &of(plains, figure), None);
    }
    let name = format!("{what}: process start to last tensor / to plain copy");
    recorder.add(name, "", &ratios(&load, &plain), (Bound::AtMost, MOST));
}

fn tensors(bytes: u64) -> Vec<Tensor> {
    let [rank, width] = DIMENSIONS;
    let tensor = |i: u64| {
        let shape = if i.is_multiple_of(2) { [rank, width] } else { [width, rank] };
        Tensor::new(format!("lora.{i}.weight"), Dtype::BF16, &shape)
    };
    (0..bytes.div_ceil(tensor(0).bytes())).map(tensor).collect()
}

pub fn large(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let large = Large::open(part)?;
    let figures: [(&str, &str, Of); 3] = [
        ("seconds from its start to the last tensor", "s", Run::seconds),
        ("peak of host memory, the driver's included", "MiB", |run| {
            run.figures.peak_rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20))
        }),
        ("CPU time, making the context included", "CPU-s/GB", |run| {
            run.figures.cpu_seconds_per_gigabyte()
        }),
    ];
    let what = size(large.tmpfs.bytes());
    let mut runs = Vec::new();
    for turn in part.clock.take() {
        runs.push(run_load(part.places, &large.tmpfs.files, turn == 0)?);
        for (name, unit, figure) in figures {
            let name = format!("a process that loads {what} from tmpfs: {name}");
            recorder.add(name, unit, &each(&runs, figure), None);
        }
    }
    Ok(())
}
