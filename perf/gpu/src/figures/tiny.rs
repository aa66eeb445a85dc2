//! Many small tensors compared with one tensor of the same size, from tmpfs, each with a loader
//! that is kept between turns.
//!
//! The target applies to the whole call, which opens the checkpoint and reads several megabytes of
//! headers. The figures without opening, and those of whole processes, are explanations.

use super::{Part, each, load, loader, size};
use crate::checkpoints::Written;
use crate::children::run_load;
use crate::places::check_room;
use crate::record::Recorder;
use anyhow::Result;
use ringload::{Dtype, Loader, MemoryLimit};
use ringload_measure::checkpoint::Tensor;
use ringload_measure::stats::{Bound, ratios};
use std::sync::Arc;
use std::time::Instant;

const MOST: f64 = 2.0;
const BYTES_EACH: usize = 4096;

/// The ways to load, and the one tensor that each is compared with.
const WAYS: [&str; 3] =
    ["as one tensor", "as one, checkpoints open already", "as one, from process start"];

/// One checkpoint and its times.
struct Subject {
    name: &'static str,
    written: Written,
    loader: Loader,
    /// By way.
    seconds: [Vec<f64>; WAYS.len()],
}

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
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
        subjects.push(Subject { name, written, loader, seconds: Default::default() });
    }
    for turn in part.clock.take() {
        for way in 0..WAYS.len() {
            for subject in &mut subjects {
                let seconds = subject.load(part, way, turn == 0)?;
                subject.seconds[way].push(seconds);
            }
        }
        record(recorder, count, &subjects);
    }
    Ok(())
}

fn record(recorder: &mut Recorder, count: usize, subjects: &[Subject]) {
    let (one, many) = subjects.split_at(1);
    let millis = |turns: &[f64]| each(turns, |seconds| seconds * 1e3);
    let bytes = size((count * BYTES_EACH) as u64);
    recorder.add(format!("{bytes} as one tensor"), "ms", &millis(&one[0].seconds[0]), None);
    for subject in many {
        let name = format!("{count} tensors of {}", subject.name);
        recorder.add(name.clone(), "ms", &millis(&subject.seconds[0]), None);
        for (way, what) in WAYS.into_iter().enumerate() {
            let ratio = ratios(&subject.seconds[way], &one[0].seconds[way]);
            let name = format!("{name} / {what}");
            recorder.add(name, "", &ratio, (way == 0).then_some((Bound::AtMost, MOST)));
        }
    }
}

impl Subject {
    /// The time of one load.
    fn load(&self, part: &Part<'_>, way: usize, compare: bool) -> Result<f64> {
        let Self { written, loader, .. } = self;
        Ok(match way {
            0 => load(part, loader, written, compare)?.figures.seconds,
            1 => {
                let checkpoint = Arc::new(loader.open(&written.files)?);
                part.args.settle(written.bytes());
                let began = Instant::now();
                let _loaded = loader.load_checkpoint(checkpoint)?;
                began.elapsed().as_secs_f64()
            }
            _ => run_load(part.places, &written.files, compare)?.seconds(),
        })
    }
}
