//! Many small tensors compared with one tensor of the same size, from tmpfs, each with a loader
//! that is kept between turns.
//!
//! The target applies to the whole call, which opens the checkpoint and reads several megabytes of
//! headers. The figures without opening, and those of whole processes, are explanations.

use super::{Part, load, loader, size};
use crate::checkpoints::{Shape, Written};
use crate::children::run_load;
use crate::places::check_room;
use crate::report::{Report, Target};
use crate::turns::Samples;
use ringload::{Dtype, Loader, MemoryLimit, Result};
use std::sync::Arc;
use std::time::Instant;

const MOST: f64 = 2.0;
const BYTES_EACH: usize = 4096;

/// One checkpoint and its times.
struct Subject {
    name: &'static str,
    written: Written,
    loader: Loader,
    whole: Samples,
    opened: Samples,
    process: Samples,
}

pub fn measure(part: &Part<'_>, report: &mut Report) -> Result<()> {
    let count = part.args.tiny;
    let total = count * BYTES_EACH;
    check_room(part.places.tmpfs(), 4 * total as u64)?;
    let one = vec![Shape::new("all", Dtype::U8, &[total])];
    let even = |i: usize| Shape::new(format!("t.{i}"), Dtype::BF16, &[BYTES_EACH / 2]);
    // 4 KiB on average, never a multiple of 256.
    let odd = |i: usize| {
        let less = 1 + i / 2 % 251;
        let len = if i.is_multiple_of(2) { BYTES_EACH - less } else { BYTES_EACH + less };
        Shape::new(format!("t.{i}"), Dtype::U8, &[len])
    };
    let shapes = [
        ("one tensor", one),
        ("4 KiB", (0..count).map(even).collect()),
        ("about 4 KiB, no multiples of 256", (0..count).map(odd).collect()),
    ];
    let mut subjects = Vec::new();
    for (index, (name, shapes)) in shapes.into_iter().enumerate() {
        let file = format!("tiny-{index}");
        let written = Written::new(part.places.tmpfs(), &file, &[shapes])?;
        let loader = loader(part, MemoryLimit::Unlimited);
        let [whole, opened, process] = Default::default();
        subjects.push(Subject { name, written, loader, whole, opened, process });
    }
    let taken = take_turns(part, &mut subjects);
    subjects.iter().for_each(|subject| subject.written.remove());
    taken?;
    let (one, many) = subjects.split_at(1);
    let millis = |samples: &Samples| samples.map(|seconds| seconds * 1e3);
    let bytes = size(total as u64);
    report.explain(format!("{bytes} as one tensor"), "ms", &millis(&one[0].whole));
    for subject in many {
        let name = format!("{count} tensors of {}", subject.name);
        report.explain(name.clone(), "ms", &millis(&subject.whole));
        report.judge(
            format!("{name} / as one tensor"),
            "",
            &subject.whole.over(&one[0].whole),
            Target::AtMost(MOST),
        );
        let opened = subject.opened.over(&one[0].opened);
        report.explain(format!("{name} / as one, checkpoints open already"), "", &opened);
        let process = subject.process.over(&one[0].process);
        report.explain(format!("{name} / as one, from process start"), "", &process);
    }
    Ok(())
}

fn take_turns(part: &Part<'_>, subjects: &mut [Subject]) -> Result<()> {
    for turn in part.clock.take() {
        for subject in &mut *subjects {
            let device = part.places.device;
            let loaded = load(&subject.loader, &subject.written, device, turn.warms_up)?;
            subject.whole.add(turn, loaded.seconds);
        }
        for subject in &mut *subjects {
            let checkpoint = Arc::new(subject.loader.open(&subject.written.files)?);
            let began = Instant::now();
            let loaded = subject.loader.load_checkpoint(checkpoint)?;
            subject.opened.add(turn, began.elapsed().as_secs_f64());
            drop(loaded);
        }
        for subject in &mut *subjects {
            let run = run_load(part.places, MemoryLimit::Unlimited, &subject.written.files)?;
            subject.process.add(turn, run.seconds);
        }
    }
    Ok(())
}
