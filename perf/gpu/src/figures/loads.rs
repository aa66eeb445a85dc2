//! Loads of cached files, compared with the speed of copies from pinned memory to the GPU.
//!
//! The limit is the better of two chunk sizes, copied repeatedly from 256 MiB of registered memory
//! on two streams. Loads run in this process, which has a context, with a loader that keeps its
//! pinned ring between turns, as a server does. A loader without a kept ring has its own figure.
//! The time of a load extends from the call, which opens the checkpoint, to the last loaded tensor,
//! and includes the allocations on the GPU.

use super::{Large, Loaded, Part, each, load, loader, make_warm, note, size};
use crate::checkpoints::Written;
use crate::gpu::{Memory, Pinned, host_to_device_seconds};
use crate::record::Recorder;
use anyhow::Result;
use ringload::{Loader, MemoryLimit};
use ringload_measure::stats::{Bound, ratios};

const LEAST: f64 = 0.90;
const PINNED_MOST_BYTES: u64 = 512 << 20;
/// The size of the copied memory, and the bytes copied in a turn.
const PINNED_BYTES: usize = 256 << 20;
const COPIED_BYTES: usize = 4 << 30;
const CHUNKS: [usize; 2] = [8 << 20, 64 << 20];

/// One variant of the load.
struct Subject<'a> {
    name: String,
    written: &'a Written,
    /// `None` if each load has a new loader.
    kept: Option<Loader>,
    judged: bool,
    loads: Vec<Loaded>,
}

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let large = Large::open(part)?;
    let mut subjects = subjects(part, &large);
    recorder.note(
        "loads of cached files run in a process whose context is there, by a loader that keeps its \
         pinned ring from load to load, except where a new one is said; each opens the checkpoint \
         and allocates on the GPU",
    );
    let mut limits = Vec::new();
    for turn in part.clock.take() {
        limits.push(pinned_speeds(part, large.disk.bytes() as usize)?);
        make_warm(&large.disk.files)?;
        for subject in &mut subjects {
            let new = loader(part, MemoryLimit::Unlimited);
            let loader = subject.kept.as_ref().unwrap_or(&new);
            subject.loads.push(load(part, loader, subject.written, turn == 0)?);
        }
        record(recorder, &limits, &subjects);
    }
    Ok(())
}

fn subjects<'a>(part: &Part<'_>, large: &'a Large) -> Vec<Subject<'a>> {
    let what = size(large.disk.bytes());
    // Clones share a loader's pinned ring.
    let default = loader(part, MemoryLimit::Unlimited);
    let capped = loader(part, MemoryLimit::Bytes(PINNED_MOST_BYTES));
    let mut subjects = Vec::new();
    for (source, written) in [("tmpfs", &large.tmpfs), ("the page cache", &large.disk)] {
        let variants = [
            ("", Some(default.clone()), true),
            (", --memory-limit 512MiB", Some(capped.clone()), true),
            (", a new loader each time", None, false),
        ];
        subjects.extend(variants.map(|(variant, kept, judged)| {
            let name = format!("{what} from {source}{variant}");
            Subject { name, written, kept, judged, loads: Vec::new() }
        }));
    }
    subjects
}

fn record(recorder: &mut Recorder, limits: &[[f64; CHUNKS.len()]], subjects: &[Subject<'_>]) {
    for (index, chunk) in CHUNKS.into_iter().enumerate() {
        let name = format!("pinned memory to the GPU, {} copies", size(chunk as u64));
        recorder.add(name, "GB/s", &each(limits, |speeds| speeds[index]), None);
    }
    let limit = each(limits, |[one, other]| one.max(*other));
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for Subject { name, loads, judged, .. } in subjects {
        note(recorder, name, loads);
        let speeds = each(loads, Loaded::speed);
        recorder.add(name.clone(), "GB/s", &speeds, None);
        recorder.add(format!("{name}: CPU time"), "CPU-s/GB", &each(loads, Loaded::cpu), None);
        let of_limit = format!("{name} / pinned memory to the GPU");
        let least = judged.then_some((Bound::AtLeast, LEAST));
        recorder.add(of_limit, "", &ratios(&speeds, &limit), least);
        let pinned = each(loads, |loaded| mebibytes(loaded.ring_bytes));
        let most = judged.then_some((Bound::AtMost, mebibytes(PINNED_MOST_BYTES)));
        recorder.add(format!("{name}: pinned"), "MiB", &pinned, most);
    }
}

/// The speeds of bare copies, by chunk size. The memory is freed before the loads, so that they have the
/// machine to themselves.
fn pinned_speeds(part: &Part<'_>, bytes: usize) -> Result<[f64; CHUNKS.len()]> {
    let mut from = Pinned::new(part.gpu, PINNED_BYTES.min(bytes))?;
    from.bytes_mut().fill(0x5A);
    let total = COPIED_BYTES.min(bytes);
    let to = Memory::new(part.gpu, total)?;
    part.args.settle(bytes as u64);
    let mut speeds = [0.0; CHUNKS.len()];
    for (chunk, speed) in std::iter::zip(CHUNKS, &mut speeds) {
        *speed = total as f64 / host_to_device_seconds(&mut from, &to, chunk, total)? / 1e9;
    }
    Ok(speeds)
}
