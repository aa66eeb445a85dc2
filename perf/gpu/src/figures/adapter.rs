//! A small model, from the start of a process to its last tensor, compared with a process that
//! creates a context, reads the file into a vector and copies it to the GPU, one step after the
//! other. Both are children of this executable; the file is in the page cache.

use super::{Part, make_warm};
use crate::checkpoints::{Shape, Written};
use crate::children::{Of, Run, run_load, run_plain};
use crate::report::{Report, Target};
use crate::turns::Samples;
use ringload::{Dtype, MemoryLimit, Result};

const MOST: f64 = 1.25;
/// The width of the model to which the adapter of rank 64 belongs.
const DIMENSIONS: [usize; 2] = [64, 4096];

pub fn measure(part: &Part<'_>, report: &mut Report) -> Result<()> {
    let written = Written::new(part.places.disk(), "adapter", &[shapes(part.args.adapter)])?;
    make_warm(&written.files)?;
    let (mut loads, mut plains) = (Vec::new(), Vec::new());
    let mut ratio = Samples::default();
    for turn in part.clock.take() {
        let load = run_load(part.places, MemoryLimit::Unlimited, &written.files)?;
        let plain = run_plain(part.places, &written.files[0])?;
        ratio.add(turn, load.seconds / plain.seconds);
        if !turn.warms_up {
            loads.push(load);
            plains.push(plain);
        }
    }
    let what = format!("an adapter of {}", super::size(written.bytes()));
    let of = |runs: &[Run], figure: Of| Samples(runs.iter().map(|run| figure(run) * 1e3).collect());
    report.explain(
        format!("process start to last tensor of {what}"),
        "ms",
        &of(&loads, |run| run.seconds),
    );
    report.explain("process start to plain copy", "ms", &of(&plains, |run| run.seconds));
    let parts: [(&str, Of); 3] = [
        ("context creation, from main()", |run| run.parts.context_seconds),
        ("plain read", |run| run.parts.read_seconds),
        ("plain copy", |run| run.parts.copy_seconds),
    ];
    for (name, figure) in parts {
        report.explain(name, "ms", &of(&plains, figure));
    }
    let name = format!("{what}: process start to last tensor / to plain copy");
    report.judge(name, "", &ratio, Target::AtMost(MOST));
    Ok(())
}

fn shapes(bytes: u64) -> Vec<Shape> {
    let one = Shape::new("", Dtype::BF16, &DIMENSIONS);
    let count = bytes.div_ceil(one.bytes());
    let shape = |i: u64| {
        let [rank, width] = DIMENSIONS;
        let (name, dimensions) = match i % 2 {
            0 => ("lora_A", [rank, width]),
            _ => ("lora_B", [width, rank]),
        };
        Shape::new(format!("layers.{}.{name}.weight", i / 2), Dtype::BF16, &dimensions)
    };
    (0..count).map(shape).collect()
}
