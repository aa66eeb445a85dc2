//! The rows: what is measured, in the order of each turn, and the results.

use super::child::{self, Run};
use super::fio;
use super::reference::Reference;
use crate::failure::Outcome;
use crate::format;
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
    pub fn is_cold(self) -> bool {
        matches!(self, Phase::Limit | Phase::Cold)
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

/// The task of a row's runs.
#[derive(Debug, Clone)]
enum Task {
    Load(Vec<String>),
    Reference(Reference, Vec<String>),
    Fio { chunk_bytes: usize, depth: usize },
}

/// A method to read the bytes, and its runs.
#[derive(Debug, Serialize)]
pub struct Row {
    pub phase: Phase,
    pub name: String,
    #[serde(skip)]
    pub role: Role,
    #[serde(skip)]
    task: Task,
    /// The memory that a run needs. With less, the row is skipped.
    #[serde(skip)]
    pub needs_bytes: u64,
    pub runs: Vec<Run>,
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

const LIMITS: [(usize, usize); 2] = [(8 << 20, 64), (4 << 20, 8)];

/// All rows for `workload`, with those of fio if `with_fio`.
pub fn all(workload: &Workload, with_fio: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let owned = workload.bytes + workload.bytes / 16;
    for (chunk_bytes, depth) in LIMITS {
        rows.push(bare(chunk_bytes, depth, false));
        rows.push(bare(chunk_bytes, depth, true).needing(owned));
        if with_fio {
            let name = format!("fio {} x {depth}", format::size(chunk_bytes as u64));
            let task = Task::Fio { chunk_bytes, depth };
            rows.push(row(Phase::Limit, Role::Fio, name, task));
        }
    }
    let loads = [("direct", Role::Direct), ("buffered", Role::Buffered), ("auto", Role::Auto)];
    for (path, role) in loads {
        rows.push(load(Phase::Cold, role, path, &[]).needing(owned));
    }
    rows.push(load(Phase::Cold, Role::Mapped, "mapped", &[]));
    rows.push(load(Phase::Cold, Role::Streamed, "auto", &["--drop"]));
    if let Some(cap) = workload.cap_bytes {
        let mut capped = load(Phase::Cold, Role::Capped, "auto", &[]);
        capped.name = format!("auto, at most {}", format::size(cap));
        capped.task = Task::Load(load_options("auto", &cap.to_string(), &[]));
        rows.push(capped);
    }
    // For warm loads the page cache needs the size of the checkpoint, too.
    for (path, role) in loads {
        rows.push(load(Phase::Warm, role, path, &[]).needing(owned + workload.bytes));
    }
    rows.push(load(Phase::Warm, Role::Mapped, "mapped", &[]).needing(workload.bytes));
    let floors = [
        (Reference::Memcpy, Role::Memcpy, "memcpy", 2),
        (Reference::MemcpyHuge, Role::Memcpy, "memcpy, huge pages", 2),
        (Reference::MmapTouch, Role::MmapTouch, "mmap and touch", 0),
        (Reference::FreshMemory, Role::FreshMemory, "fresh memory", 1),
        (Reference::PlainRead, Role::Other, "plain read", 1),
    ];
    for (kind, role, name, times) in floors {
        let row = row(Phase::Floor, role, name.into(), Task::Reference(kind, Vec::new()));
        rows.push(row.needing(workload.bytes * times + owned));
    }
    rows
}

/// Bare direct reads of `chunk_bytes`, `depth` in flight.
///
/// With `keep` the reads go into memory that is kept, as in a load, but was faulted in beforehand.
/// If that is slower than with reused buffers, a load that keeps its tensors is slower, too.
fn bare(chunk_bytes: usize, depth: usize, keep: bool) -> Row {
    let mut name = format!("io_uring {} x {depth}", format::size(chunk_bytes as u64));
    let mut options = vec![format!("--chunk={chunk_bytes}"), format!("--depth={depth}")];
    let mut role = Role::Bare;
    if keep {
        name += ", kept";
        options.push("--keep".into());
        role = Role::BareKept;
    }
    row(Phase::Limit, role, name, Task::Reference(Reference::Direct, options))
}

fn row(phase: Phase, role: Role, name: String, task: Task) -> Row {
    Row { phase, name, role, task, needs_bytes: 0, runs: Vec::new() }
}

fn load(phase: Phase, role: Role, path: &str, more: &[&str]) -> Row {
    let name = [&[path], more].concat().join(" ").replace("--drop", "(streamed)");
    row(phase, role, name, Task::Load(load_options(path, "unlimited", more)))
}

/// The options of `ringload load`. The limit is always given, as it overrides the environment.
fn load_options(path: &str, limit: &str, more: &[&str]) -> Vec<String> {
    let mut options = vec!["load".to_owned(), "--json".to_owned()];
    options.push(format!("--read-path={path}"));
    options.push(format!("--memory-limit={limit}"));
    options.extend(more.iter().map(|&option| option.to_owned()));
    options
}

impl Row {
    fn needing(self, needs_bytes: u64) -> Self {
        Self { needs_bytes, ..self }
    }

    /// Runs the row once more.
    ///
    /// # Errors
    /// When the measuring process fails.
    pub fn measure(&mut self, workload: &Workload) -> Outcome {
        let run = match &self.task {
            Task::Load(options) => {
                let mut arguments: Vec<OsString> = options.iter().map(OsString::from).collect();
                arguments.extend(["--".into(), workload.location.to_owned()]);
                child::run(&arguments)?
            }
            Task::Reference(kind, options) => child::run(&kind.arguments(options, workload.files))?,
            Task::Fio { chunk_bytes, depth } => fio::run(workload.files, *chunk_bytes, *depth)?,
        };
        self.runs.push(run);
        Ok(())
    }

    pub fn seconds(&self) -> Option<f64> {
        self.median(|run| run.seconds)
    }

    pub fn gigabytes_per_second(&self) -> Option<f64> {
        self.median(Run::gigabytes_per_second)
    }

    pub fn cpu_seconds_per_gigabyte(&self) -> Option<f64> {
        self.median(Run::cpu_seconds_per_gigabyte)
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

    fn median(&self, figure: impl Fn(&Run) -> f64) -> Option<f64> {
        median(self.runs.iter().map(figure).collect())
    }
}

/// The median of `figures`; `None` if there are none.
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(figures[middle]),
        _ => Some((figures[middle - 1] + figures[middle]) / 2.0),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A measured row of one gigabyte.
    pub fn measured(phase: Phase, role: Role, seconds: &[f64], cpu: f64, peak: u64) -> Row {
        let mut row = row(phase, role, "a row".into(), Task::Load(Vec::new()));
        row.runs.extend(seconds.iter().map(|&seconds| Run {
            bytes: 1_000_000_000,
            seconds,
            cpu_seconds: cpu,
            peak_rss_bytes: Some(peak),
            process_seconds: seconds,
        }));
        row
    }

    fn rows(cap_bytes: Option<u64>, fio: bool) -> Vec<Row> {
        let files = ["/m/a".into()];
        all(&Workload { location: "/m".as_ref(), files: &files, bytes: 1 << 30, cap_bytes }, fio)
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
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
