//! The targets, part by part; the head of each part describes its comparison.
//!
//! The context of the measured GPU stays open (children create their own), so that loads in this
//! process find it and the driver's kernel module stays active.

mod disk;
mod kernels;
mod loads;
mod processes;
mod tiny;

use crate::checkpoints::{Written, llama};
use crate::gpu::Gpu;
use crate::places::{Places, check_room};
use crate::report::Report;
use crate::turns::Clock;
use anyhow::{Result, ensure};
use ringload::internals::resident_bytes;
use ringload::{Device, Loader, MemoryLimit};
use ringload_measure::checkpoint::data_bytes;
use ringload_measure::figures::{Figures, Stopwatch};
use ringload_measure::page_cache::CacheState;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The amount of measurements.
#[derive(Debug, Clone, clap::Args)]
pub struct FiguresArgs {
    /// Bytes of the checkpoint that is loaded from tmpfs, the page cache and the disk
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = size_bytes)]
    size: u64,
    /// Bytes of the adapter
    #[arg(long, value_name = "BYTES", default_value = "100MiB", value_parser = size_bytes)]
    adapter: u64,
    /// How many small tensors
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    tiny: usize,
    /// Bytes that kernels work on
    #[arg(long, value_name = "BYTES", default_value = "2GiB", value_parser = size_bytes)]
    buffer: u64,
    /// How many turns measure everything; results are medians
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=1000))]
    turns: u64,
    /// No turn begins after so many minutes of measuring
    #[arg(long, value_name = "MINUTES", default_value_t = 6.0)]
    minutes: f64,
}

/// A size in the format of a memory limit.
pub fn size_bytes(text: &str) -> std::result::Result<u64, String> {
    match text.parse() {
        Ok(MemoryLimit::Bytes(bytes)) => Ok(bytes),
        _ => Err("use bytes, such as 4000000000, 512MiB or 4GiB".into()),
    }
}

/// The number of turns that suffices for a figure if time is short.
const TURNS_LEAST: usize = 5;

/// The common input of all parts.
struct Part<'a> {
    gpu: &'a Gpu,
    places: &'a Places,
    args: &'a FiguresArgs,
    clock: Clock,
}

type Measure = fn(&Part<'_>, &mut Report) -> Result<()>;

/// Measures all parts, each in its share of the time; the report is written to `out` after each.
///
/// # Errors
/// If something fails that the other parts need.
pub fn all(
    gpu: &Gpu,
    places: &Places,
    args: &FiguresArgs,
    report: &mut Report,
    out: &Path,
) -> Result<()> {
    let time = Duration::try_from_secs_f64(args.minutes * 60.0).unwrap_or(Duration::MAX / 4);
    let clock = Clock::new(args.turns as usize, time.min(Duration::from_secs(1 << 30)));
    report.turns = (args.turns as usize).min(TURNS_LEAST);
    let part = |left| Part { gpu, places, args, clock: clock.share(left) };
    let small: [(&str, Measure); 3] = [
        ("kernels", kernels::measure),
        ("an adapter", processes::adapter),
        ("small tensors", tiny::measure),
    ];
    for (left, (what, measure)) in (4..=6).rev().zip(small) {
        take(report, what, |report| measure(&part(left), report));
        report.write(out)?;
    }
    eprintln!("writing a checkpoint");
    let large = match Large::write(&part(1)) {
        Ok(large) => large,
        Err(error) => {
            report.skip(format!("large loads: {error:#}"));
            return Ok(());
        }
    };
    take(report, "loads of cached files", |report| loads::measure(&part(3), &large, report));
    report.write(out)?;
    take(report, "whole processes", |report| processes::large(&part(2), &large, report));
    report.write(out)?;
    large.tmpfs.remove(); // it is memory
    take(report, "loads from the disk", |report| disk::measure(&part(1), &large, report));
    Ok(())
}

/// Measures a part. A failure is recorded and does not stop the other parts.
fn take(report: &mut Report, what: &str, work: impl FnOnce(&mut Report) -> Result<()>) {
    eprintln!("measuring: {what}");
    if let Err(error) = work(report) {
        report.skip(format!("{what}: {error:#}"));
    }
}

/// The large checkpoint: the same files on the disk and on tmpfs.
struct Large {
    disk: Written,
    tmpfs: Written,
}

/// The number of files, which are written in parallel; some parts use only the first few.
const SHARDS: usize = 8;

impl Large {
    fn write(part: &Part<'_>) -> Result<Self> {
        let shards = llama(part.args.size, SHARDS);
        let bytes: u64 = shards.iter().map(|tensors| data_bytes(tensors)).sum();
        let needed = bytes + bytes / 16 + (1 << 20);
        check_room(part.places.disk(), needed)?;
        check_room(part.places.tmpfs(), needed)?;
        let free = part.gpu.free_bytes()?;
        ensure!(
            free >= needed,
            "the GPU has {} MiB free and {} are needed; measure less (--size)",
            free >> 20,
            needed >> 20
        );
        let disk = Written::new(part.places.disk(), "large", shards)?;
        let tmpfs = disk.copied(part.places.tmpfs())?;
        Ok(Self { disk, tmpfs })
    }
}

/// The result of one load in this process.
struct Loaded {
    figures: Figures,
    ring_bytes: u64,
    /// The read path and the fallbacks.
    notes: Vec<String>,
}

impl Loaded {
    fn speed(&self) -> f64 {
        self.figures.gigabytes_per_second()
    }

    fn cpu(&self) -> f64 {
        self.figures.cpu_seconds_per_gigabyte()
    }
}

/// One figure of each run.
fn each<T>(runs: &[T], figure: impl Fn(&T) -> f64) -> Vec<f64> {
    runs.iter().map(figure).collect()
}

/// Loads `written` with `loader`, and compares it with the files if `compare` is set. The tensors
/// are dropped outside the measured time.
fn load(loader: &Loader, written: &Written, device: Device, compare: bool) -> Result<Loaded> {
    let bytes = written.bytes();
    let stopwatch = Stopwatch::start()?;
    let loaded = loader.load(&written.files)?;
    let figures = stopwatch.figures(bytes)?;
    let summary = loaded.summary();
    let on_device = summary.device_bytes.get(&device).copied().unwrap_or(0);
    ensure!(
        on_device == bytes && loaded.len() == written.tensors(),
        "{on_device} of {bytes} bytes came to {device}"
    );
    if compare {
        written.compare(&loaded)?;
    }
    let mut notes = vec![format!("read {}", summary.read_path())];
    let fallbacks = summary.downgrades.iter();
    notes.extend(fallbacks.map(|step| format!("{} to {}: {}", step.from, step.to, step.why)));
    Ok(Loaded { figures, ring_bytes: summary.ring_bytes, notes })
}

/// A loader to the GPU that ignores the environment.
fn loader(part: &Part<'_>, limit: MemoryLimit) -> Loader {
    Loader::new().device(part.places.device).memory_limit(limit)
}

/// Reads the files until they are in the page cache.
fn make_warm(files: &[PathBuf]) -> Result<()> {
    CacheState::Warm.prepare(files, resident_bytes)?;
    Ok(())
}

/// Notes the read path and the fallbacks of the first load.
fn note(report: &mut Report, name: &str, loads: &[Loaded]) {
    let notes = loads.iter().take(1).flat_map(|loaded| &loaded.notes);
    report.notes.extend(notes.map(|note| format!("{name}: {note}")));
}

/// A size for people.
fn size(bytes: u64) -> String {
    match bytes {
        small if small < 1 << 20 => format!("{} KiB", small >> 10),
        middle if middle < 1 << 30 => format!("{} MiB", middle >> 20),
        large => format!("{:.1} GiB", large as f64 / f64::from(1 << 30)),
    }
}
