//! A small model, from the start of a process to its last tensor, compared with a process that
//! creates a context, reads the file into a vector and copies it to the GPU, one step after the
//! other. Both are children of this executable; the file is in the page cache.

use super::{Part, make_warm};
use crate::checkpoints::Written;
use crate::children::{Of, Run, run_load, run_plain};
use crate::report::Report;
use anyhow::Result;
use ringload::{Dtype, MemoryLimit};
use ringload_measure::checkpoint::Tensor;
use ringload_measure::stats::{Bound, ratios};

const MOST: f64 = 1.25;
/// The width of the model to which the adapter of rank 64 belongs.
const DIMENSIONS: [usize; 2] = [64, 4096];

pub fn measure(part: &Part<'_>, report: &mut Report) -> Result<()> {
    let written = Written::new(part.places.disk(), "adapter", vec![tensors(part.args.adapter)])?;
    make_warm(&written.files)?;
    let (mut loads, mut plains) = (Vec::new(), Vec::new());
    for _ in part.clock.take() {
        loads.push(run_load(part.places, MemoryLimit::Unlimited, &written.files)?);
        plains.push(run_plain(part.places, &written.files[0])?);
    }
    let what = format!("an adapter of {}", super::size(written.bytes()));
    let of = |runs: &[Run], figure: Of| -> Vec<f64> {
        runs.iter().map(|run| figure(run) * 1e3).collect()
    };
    let (load, plain) = (of(&loads, Run::seconds), of(&plains, Run::seconds));
    report.explain(format!("process start to last tensor of {what}"), "ms", &load);
    report.explain("process start to plain copy", "ms", &plain);
    let parts: [(&str, Of); 3] = [
        ("context creation, from main()", |run| run.parts.context_seconds),
        ("plain read", |run| run.parts.read_seconds),
        ("plain copy", |run| run.parts.copy_seconds),
    ];
    for (name, figure) in parts {
        report.explain(name, "ms", &of(&plains, figure));
    }
    let name = format!("{what}: process start to last tensor / to plain copy");
    report.judge(name, "", &ratios(&load, &plain), (Bound::AtMost, MOST));
    Ok(())
}

fn tensors(bytes: u64) -> Vec<Tensor> {
    let [rank, width] = DIMENSIONS;
    let tensor = |i: u64| {
        let (name, shape) = match i % 2 {
            0 => ("lora_A", [rank, width]),
            _ => ("lora_B", [width, rank]),
        };
        Tensor::new(format!("layers.{}.{name}.weight", i / 2), Dtype::BF16, &shape)
    };
    (0..bytes.div_ceil(tensor(0).bytes())).map(tensor).collect()
}
