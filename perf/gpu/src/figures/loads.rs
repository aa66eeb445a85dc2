//! Loads of cached files, compared with the speed of copies from pinned memory to the GPU.
//!
//! The limit is the better of two chunk sizes, copied repeatedly from 256 MiB of registered memory
//! on two streams. Loads run in this process, which has a context, with a loader that keeps its
//! pinned ring between turns, as a server does. A loader without a kept ring has its own figure.
//! The time of a load extends from the call, which opens the checkpoint, to the last loaded tensor,
//! and includes the allocations on the GPU.

use super::{Large, Loaded, Part, load, loader, make_warm, size};
use crate::checkpoints::Written;
use crate::gpu::{Memory, Pinned, host_to_device_seconds};
use crate::report::Report;
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
    speeds: Vec<f64>,
    cpu: Vec<f64>,
    pinned: Vec<f64>,
}

pub fn measure(part: &Part<'_>, large: &Large, report: &mut Report) -> Result<()> {
    let limited = MemoryLimit::Bytes(PINNED_MOST_BYTES);
    let what = size(large.disk.bytes());
    let mut subjects = Vec::new();
    // Clones share a loader's pinned ring.
    let unlimited = MemoryLimit::Unlimited;
    let [default, capped] = [unlimited, limited].map(|limit| loader(part, limit));
    for (source, written) in [("tmpfs", &large.tmpfs), ("the page cache", &large.disk)] {
        let name = format!("{what} from {source}");
        let subject = |variant: &str, kept: Option<Loader>| {
            let [speeds, cpu, pinned] = Default::default();
            Subject {
                name: format!("{name}{variant}"),
                written,
                kept,
                judged: false,
                speeds,
                cpu,
                pinned,
            }
        };
        let judged = |subject| Subject { judged: true, ..subject };
        subjects.push(judged(subject("", Some(default.clone()))));
        subjects.push(judged(subject(", --memory-limit 512MiB", Some(capped.clone()))));
        subjects.push(subject(", --verify", Some(default.clone().verify(true))));
        subjects.push(subject(", a new loader each time", None));
    }
    let limits = take_turns(part, large, &mut subjects, report)?;
    report.notes.push(
        "loads of cached files run in a process whose context is there, by a loader that keeps its \
         pinned ring from load to load, except where a new one is said; each opens the checkpoint \
         and allocates on the GPU"
            .into(),
    );
    for (chunk, speeds) in std::iter::zip(CHUNKS, &limits) {
        let name = format!("pinned memory to the GPU, {} copies", size(chunk as u64));
        report.explain(name, "GB/s", speeds);
    }
    let [one, other] = &limits;
    let limit: Vec<_> = std::iter::zip(one, other).map(|(one, other)| one.max(*other)).collect();
    for subject in &subjects {
        subject.report(report, &limit);
    }
    Ok(())
}

impl Subject<'_> {
    fn report(&self, report: &mut Report, limit: &[f64]) {
        let name = &self.name;
        report.explain(name.clone(), "GB/s", &self.speeds);
        report.explain(format!("{name}: CPU time"), "CPU-s/GB", &self.cpu);
        let ratio = ratios(&self.speeds, limit);
        let of_limit = format!("{name} / pinned memory to the GPU");
        if !self.judged {
            return report.explain(of_limit, "", &ratio);
        }
        report.judge(of_limit, "", &ratio, (Bound::AtLeast, LEAST));
        let most = (PINNED_MOST_BYTES >> 20) as f64;
        report.judge(format!("{name}: pinned"), "MiB", &self.pinned, (Bound::AtMost, most));
    }
}

/// Measures everything once per turn; returns the speeds of the bare copies, by chunk size.
fn take_turns(
    part: &Part<'_>,
    large: &Large,
    subjects: &mut [Subject<'_>],
    report: &mut Report,
) -> Result<[Vec<f64>; 2]> {
    let bytes = large.disk.bytes() as usize;
    let mut limits = <[Vec<f64>; 2]>::default();
    for turn in part.clock.take() {
        // Freed before the loads, so that they have the machine to themselves.
        let mut from = Pinned::new(part.gpu, PINNED_BYTES.min(bytes))?;
        from.bytes_mut().fill(0x5A);
        let to = Memory::new(part.gpu, bytes.min(COPIED_BYTES))?;
        for (chunk, speeds) in std::iter::zip(CHUNKS, &mut limits) {
            let total = COPIED_BYTES.min(bytes);
            let seconds = host_to_device_seconds(&mut from, &to, chunk, total)?;
            speeds.push(total as f64 / seconds / 1e9);
        }
        drop((from, to));
        make_warm(&large.disk.files)?;
        for subject in &mut *subjects {
            let new;
            let loader = match &subject.kept {
                Some(kept) => kept,
                None => {
                    new = loader(part, MemoryLimit::Unlimited);
                    &new
                }
            };
            let loaded = load(loader, subject.written, part.places.device, turn == 0)?;
            subject.speeds.push(loaded.figures.gigabytes_per_second());
            subject.cpu.push(loaded.figures.cpu_seconds_per_gigabyte());
            subject.pinned.push(loaded.ring_bytes as f64 / f64::from(1 << 20));
            if turn == 0 {
                note(report, &subject.name, &loaded);
            }
        }
    }
    Ok(limits)
}

/// The read path and the downgrades.
pub fn note(report: &mut Report, name: &str, loaded: &Loaded) {
    report.notes.push(format!("{name}: read {}", loaded.read_path));
    for step in &loaded.downgrades {
        report.notes.push(format!("{name}: {step}"));
    }
}
