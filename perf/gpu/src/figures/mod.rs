//! The targets, part by part; the head of each part describes its comparison.
//!
//! Each part is a step. It records its figures after every turn. The context of the measured GPU stays
//! open meanwhile (children create their own), so that loads in this process find it and the driver's
//! kernel module stays active.

mod copies;
mod disk;
mod gds;
mod kernels;
mod large;
mod loads;
mod pages;
mod processes;
mod tiny;
mod verify;

pub use copies::measure as copies;
pub use disk::measure as disk;
pub use gds::measure as gds;
pub use kernels::measure as kernels;
pub use large::{Large, LargeSpec, write as write_large};
pub use loads::measure as cached;
pub use pages::measure as pages;
pub use processes::{adapter, large as processes};
pub use tiny::measure as small;
pub use verify::measure as verify;

use crate::checkpoints::Written;
use crate::gpu::Gpu;
use crate::places::Places;
use crate::record::Recorder;
use crate::turns::Clock;
use anyhow::{Result, ensure};
use ringload::internals::resident_bytes;
use ringload::{Loader, MemoryLimit};
use ringload_measure::figures::{Figures, Stopwatch};
use ringload_measure::page_cache::CacheState;
use std::path::PathBuf;
use std::thread::sleep;
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
    /// How many milliseconds the GPU is left alone before each load, for each GiB that the last one has
    /// freed. The driver clears freed memory: on one H200, copies took twice as long for 20 to 50 ms after
    /// 8 GiB were freed
    #[arg(long, value_name = "MS", default_value_t = 30)]
    settle: u64,
    /// How many turns measure everything; results are medians
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=1000))]
    turns: u64,
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

impl FiguresArgs {
    pub fn turns(&self) -> usize {
        self.turns as usize
    }

    /// The number of turns that a target needs.
    pub fn enough(&self) -> usize {
        self.turns().min(TURNS_LEAST)
    }

    /// How many seconds the GPU is left alone for each GiB that was freed.
    pub fn settle_seconds(&self) -> f64 {
        self.settle as f64 / 1e3
    }

    /// Leaves the GPU alone after `bytes` of its memory were freed.
    fn settle(&self, bytes: u64) {
        let gibibytes = bytes as f64 / f64::from(1 << 30);
        sleep(Duration::from_secs_f64(gibibytes * self.settle_seconds()));
    }

    /// The large checkpoint.
    pub fn large(&self) -> LargeSpec {
        LargeSpec::new(self.size)
    }
}

/// The common input of all parts.
pub struct Part<'a> {
    pub gpu: &'a Gpu,
    pub places: &'a Places,
    pub args: &'a FiguresArgs,
    pub clock: Clock,
}

/// Measures a part, and records its figures after each turn.
pub type Measure = fn(&Part<'_>, &mut Recorder) -> Result<()>;

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

/// Loads `written` with `loader`, after the GPU has settled, and compares it with the files if `compare`
/// is set. The tensors are dropped outside the measured time.
fn load(part: &Part<'_>, loader: &Loader, written: &Written, compare: bool) -> Result<Loaded> {
    let (bytes, device) = (written.bytes(), part.places.device);
    part.args.settle(bytes);
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
fn note(recorder: &mut Recorder, name: &str, loads: &[Loaded]) {
    for note in loads.iter().take(1).flat_map(|loaded| &loaded.notes) {
        recorder.note(format!("{name}: {note}"));
    }
}

/// A size for people.
fn size(bytes: u64) -> String {
    match bytes {
        small if small < 1 << 20 => format!("{} KiB", small >> 10),
        middle if middle < 1 << 30 => format!("{} MiB", middle >> 20),
        large => format!("{:.1} GiB", large as f64 / f64::from(1 << 30)),
    }
}
