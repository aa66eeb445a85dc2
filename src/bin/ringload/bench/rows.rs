//! The rows: what is measured, in the order of each turn, and the results.

use super::reference::Reference;
use crate::failure::Outcome;
use crate::format;
use ringload::Error;
use ringload_measure::figures::Figures;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use ringload_measure::stats::median;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The kind of row, and whether its files are cold or warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reads of cold files without a loader, the limit of the disk.
    Limit,
    /// Loads of cold files.
    Cold,
    /// Loads of files that are in the page cache.
    Warm,
    /// Reference measurements on warm files.
    Floor,
}

impl Phase {
    /// The state of the files before a run.
    pub fn state(self) -> CacheState {
        match self {
            Phase::Limit | Phase::Cold => CacheState::Cold,
            Phase::Warm | Phase::Floor => CacheState::Warm,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Limit => "limit",
            Phase::Cold => "cold",
            Phase::Warm => "warm",
            Phase::Floor => "floor",
        }
    }
}

/// The role of a row in ratios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Auto,
    Direct,
    Buffered,
    Mapped,
    Streamed,
    Capped,
    Fio,
    Bare,
    BareKept,
    FreshMemory,
    Memcpy,
    MmapTouch,
    Other,
}

/// A method to read the bytes, and its runs.
#[derive(Debug, Serialize)]
pub struct Row {
    pub phase: Phase,
    pub name: String,
    #[serde(skip)]
    pub role: Role,
    /// The arguments of this executable for one run.
    #[serde(skip)]
    arguments: Vec<OsString>,
    /// The memory that a run needs. With less, the row is skipped.
    #[serde(skip)]
    pub needs_bytes: u64,
    pub runs: Vec<Figures>,
}

/// The workload that the rows measure.
pub struct Workload<'a> {
    /// The location of the checkpoint.
    pub location: &'a OsStr,
    pub files: &'a [PathBuf],
    pub bytes: u64,
    /// The memory limit of the limited load; `None` if the checkpoint is not larger.
    pub cap_bytes: Option<u64>,
}

const LIMITS: [(u64, usize); 2] = [(8 << 20, 64), (4 << 20, 8)];

/// All rows for `workload`, with those of fio if `with_fio`.
pub fn all(workload: &Workload, with_fio: bool) -> Vec<Row> {
    let bytes = workload.bytes;
    // A load that keeps its tensors needs a little more than they take.
    let owned = bytes + bytes / 16;
    let mut rows = limits(workload, owned, with_fio);
    for (phase, role, name, path, needs_bytes) in [
        (Phase::Cold, Role::Direct, "direct", "direct", owned),
        (Phase::Cold, Role::Buffered, "buffered", "buffered", owned),
        (Phase::Cold, Role::Auto, "auto", "auto", owned),
        (Phase::Cold, Role::Mapped, "mapped", "mapped", 0),
        (Phase::Cold, Role::Streamed, "auto (streamed)", "auto", 0),
        (Phase::Cold, Role::Capped, "auto, at most", "auto", 0),
        // For warm loads the page cache needs the size of the checkpoint, too.
        (Phase::Warm, Role::Direct, "direct", "direct", owned + bytes),
        (Phase::Warm, Role::Buffered, "buffered", "buffered", owned + bytes),
        (Phase::Warm, Role::Auto, "auto", "auto", owned + bytes),
        (Phase::Warm, Role::Mapped, "mapped", "mapped", bytes),
    ] {
        let (name, limit) = match (role, workload.cap_bytes) {
            (Role::Capped, None) => continue,
            (Role::Capped, Some(cap)) => (format!("{name} {}", format::size(cap)), cap.to_string()),
            _ => (name.to_owned(), "unlimited".to_owned()),
        };
        // The limit is always given, as it overrides the environment.
        let options = [format!("--read-path={path}"), format!("--memory-limit={limit}")];
        let mut arguments = vec!["load".into(), "--json".into()];
        arguments.extend(options.map(OsString::from));
        arguments.extend((role == Role::Streamed).then(|| "--drop".into()));
        arguments.extend(["--".into(), workload.location.to_owned()]);
        rows.push(Row { phase, name, role, arguments, needs_bytes, runs: Vec::new() });
    }
    for (kind, role, name, times) in [
        (Reference::Memcpy, Role::Memcpy, "memcpy", 2),
        (Reference::MemcpyHuge, Role::Memcpy, "memcpy, huge pages", 2),
        (Reference::MmapTouch, Role::MmapTouch, "mmap and touch", 0),
        (Reference::FreshMemory, Role::FreshMemory, "fresh memory", 1),
        (Reference::PlainRead, Role::Other, "plain read", 1),
    ] {
        let arguments = kind.arguments(&[], workload.files);
        let (name, needs_bytes) = (name.to_owned(), bytes * times + owned);
        rows.push(Row { phase: Phase::Floor, name, role, arguments, needs_bytes, runs: vec![] });
    }
    rows
}

/// Direct reads of cold files without a loader.
///
/// Where they are kept, the reads go into memory that is kept, as in a load, but was faulted in
/// beforehand. If that is slower than with reused buffers, a load that keeps its tensors is slower,
/// too.
fn limits(workload: &Workload, owned: u64, with_fio: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (chunk_bytes, depth) in LIMITS {
        let shape = format!("{} x {depth}", format::size(chunk_bytes));
        let options = [format!("--chunk={chunk_bytes}"), format!("--depth={depth}")];
        let kept = [&options[..], &["--keep".to_owned()]].concat();
        for (kind, role, name, options, needs_bytes) in [
            (Reference::Direct, Role::Bare, format!("io_uring {shape}"), &options[..], 0),
            (Reference::Direct, Role::BareKept, format!("io_uring {shape}, kept"), &kept, owned),
            (Reference::Fio, Role::Fio, format!("fio {shape}"), &options, 0),
        ] {
            let arguments = kind.arguments(options, workload.files);
            let row = Row { phase: Phase::Limit, name, role, arguments, needs_bytes, runs: vec![] };
            if with_fio || role != Role::Fio {
                rows.push(row);
            }
        }
    }
    rows
}

impl Row {
    /// Runs the row once more.
    ///
    /// # Errors
    /// When the measuring process fails.
    pub fn measure(&mut self) -> Outcome {
        let run = Invocation::own().and_then(|own| own.args(&self.arguments).figures());
        self.runs.push(run.map_err(|error| Error::from_io("measure a row", error))?);
        Ok(())
    }

    pub fn seconds(&self) -> Option<f64> {
        self.median(|run| run.seconds)
    }

    pub fn gigabytes_per_second(&self) -> Option<f64> {
        self.median(Figures::gigabytes_per_second)
    }

    pub fn cpu_seconds_per_gigabyte(&self) -> Option<f64> {
        self.median(Figures::cpu_seconds_per_gigabyte)
    }

    pub fn peak_bytes(&self) -> Option<u64> {
        self.runs.iter().filter_map(|run| run.peak_rss_bytes).max()
    }

    /// The difference between the longest and the shortest run, as a share of the median.
    pub fn spread(&self) -> Option<f64> {
        let seconds = self.runs.iter().map(|run| run.seconds);
        let (least, most) = (seconds.clone().reduce(f64::min)?, seconds.reduce(f64::max)?);
        let median = self.seconds()?;
        (median > 0.0).then(|| (most - least) / median)
    }

    fn median(&self, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
        median(&self.runs.iter().map(figure).collect::<Vec<_>>())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A measured row of one gigabyte.
    pub fn measured(phase: Phase, role: Role, seconds: &[f64], cpu: f64, peak: u64) -> Row {
        let runs = seconds.iter().map(|&seconds| Figures {
            bytes: 1_000_000_000,
            seconds,
            cpu_seconds: cpu,
            peak_rss_bytes: Some(peak),
            ..Figures::default()
        });
        let (name, arguments) = ("a row".into(), Vec::new());
        Row { phase, name, role, arguments, needs_bytes: 0, runs: runs.collect() }
    }

    fn rows(cap_bytes: Option<u64>, fio: bool) -> Vec<Row> {
        let files = ["/m/a".into()];
        all(&Workload { location: "/m".as_ref(), files: &files, bytes: 1 << 30, cap_bytes }, fio)
    }

    #[test]
    fn the_spread_is_a_share_of_the_median() {
        let row = measured(Phase::Cold, Role::Auto, &[1.0, 0.9, 1.2], 0.1, 0);
        assert!((row.spread().unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(measured(Phase::Cold, Role::Auto, &[], 0.1, 0).spread(), None);
    }

    #[test]
    fn rows_are_left_out_where_there_is_nothing_to_measure() {
        let count = |cap, fio, role| rows(cap, fio).iter().filter(|row| row.role == role).count();
        assert_eq!(count(None, false, Role::Capped), 0);
        assert_eq!(count(Some(1 << 20), false, Role::Capped), 1);
        assert_eq!((count(None, false, Role::Bare), count(None, false, Role::Fio)), (2, 0));
        assert_eq!(count(None, true, Role::Fio), 2);
    }

    #[test]
    fn a_row_says_what_it_is() {
        let rows = rows(Some(256 << 20), false);
        let names: Vec<_> =
            rows.iter().filter(|row| row.phase == Phase::Cold).map(|row| &*row.name).collect();
        assert_eq!(
            names,
            ["direct", "buffered", "auto", "mapped", "auto (streamed)", "auto, at most 256.00 MiB"]
        );
    }
}
