//! Many small tensors compared with one tensor of the same size, from tmpfs, each with a loader
//! that is kept between turns.
//!
//! The target applies to the whole call, which opens the checkpoint and reads several megabytes of
//! headers. The figures without opening, and those of whole processes, are explanations.

use super::{Part, load, loader, size};
use crate::checkpoints::Written;
use crate::children::run_load;
use crate::places::check_room;
use crate::report::Report;
use anyhow::Result;
use ringload::{Dtype, Loader, MemoryLimit};
use ringload_measure::checkpoint::Tensor;
use ringload_measure::stats::{Bound, ratios};
use std::sync::Arc;
use std::time::Instant;

const MOST: f64 = 2.0;
const BYTES_EACH: usize = 4096;

/// One checkpoint and its times.
struct Subject {
    name: &'static str,
    written: Written,
    loader: Loader,
    whole: Vec<f64>,
    opened: Vec<f64>,
    process: Vec<f64>,
}

pub fn measure(part: &Part<'_>, report: &mut Report) -> Result<()> {
    let count = part.args.tiny;
    let total = count * BYTES_EACH;
    check_room(part.places.tmpfs(), 4 * total as u64)?;
    let one = vec![Tensor::new("all", Dtype::U8, &[total])];
    let even = |i: usize| Tensor::new(format!("t.{i}"), Dtype::BF16, &[BYTES_EACH / 2]);
    // 4 KiB on average, never a multiple of 256.
    let odd = |i: usize| {
        let less = 1 + i / 2 % 251;
        let len = if i.is_multiple_of(2) { BYTES_EACH - less } else { BYTES_EACH + less };
        Tensor::new(format!("t.{i}"), Dtype::U8, &[len])
    };
    let kinds = [
        ("one tensor", one),
        ("4 KiB", (0..count).map(even).collect()),
        ("about 4 KiB, no multiples of 256", (0..count).map(odd).collect()),
    ];
    let mut subjects = Vec::new();
    for (index, (name, tensors)) in kinds.into_iter().enumerate() {
        let file = format!("tiny-{index}");
        let written = Written::new(part.places.tmpfs(), &file, vec![tensors])?;
        let loader = loader(part, MemoryLimit::Unlimited);
        let [whole, opened, process] = Default::default();
        subjects.push(Subject { name, written, loader, whole, opened, process });
    }
    let taken = take_turns(part, &mut subjects);
    subjects.iter().for_each(|subject| subject.written.remove());
    taken?;
    let (one, many) = subjects.split_at(1);
    let millis = |turns: &[f64]| turns.iter().map(|seconds| seconds * 1e3).collect::<Vec<_>>();
    let bytes = size(total as u64);
    report.explain(format!("{bytes} as one tensor"), "ms", &millis(&one[0].whole));
    for subject in many {
        let name = format!("{count} tensors of {}", subject.name);
        report.explain(name.clone(), "ms", &millis(&subject.whole));
        report.judge(
            format!("{name} / as one tensor"),
            "",
            &ratios(&subject.whole, &one[0].whole),
            (Bound::AtMost, MOST),
        );
        let opened = ratios(&subject.opened, &one[0].opened);
        report.explain(format!("{name} / as one, checkpoints open already"), "", &opened);
        let process = ratios(&subject.process, &one[0].process);
        report.explain(format!("{name} / as one, from process start"), "", &process);
    }
    Ok(())
}

fn take_turns(part: &Part<'_>, subjects: &mut [Subject]) -> Result<()> {
    for turn in part.clock.take() {
        for subject in &mut *subjects {
            let device = part.places.device;
            let loaded = load(&subject.loader, &subject.written, device, turn == 0)?;
            subject.whole.push(loaded.figures.seconds);
        }
        for subject in &mut *subjects {
            let checkpoint = Arc::new(subject.loader.open(&subject.written.files)?);
            let began = Instant::now();
            let loaded = subject.loader.load_checkpoint(checkpoint)?;
            subject.opened.push(began.elapsed().as_secs_f64());
            drop(loaded);
        }
        for subject in &mut *subjects {
            let run = run_load(part.places, MemoryLimit::Unlimited, &subject.written.files)?;
            subject.process.push(run.seconds());
        }
    }
    Ok(())
}
