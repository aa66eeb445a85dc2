//! The rows: what is measured, in the order of each turn, and the results.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

/// A method to read the bytes, and its runs.
#[derive(Debug, Serialize)]
pub struct Row {
    pub phase: Phase,
    pub name: String,
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
    let mut load = |phase, name: &str, options: &str, needs_bytes| {
        let mut arguments: Vec<OsString> = vec!["load".into(), "--json".into()];
        arguments.extend(options.split_whitespace().map(OsString::from));
        arguments.extend(["--".into(), workload.location.to_owned()]);
        rows.push(Row { phase, name: name.to_owned(), arguments, needs_bytes, runs: Vec::new() });
    };
    // The limit is always given, as it overrides the environment.
    let unlimited = |path| format!("--read-path={path} --memory-limit=unlimited");
    // For warm loads the page cache needs the size of the checkpoint, too.
    for (phase, cached) in [(Phase::Cold, 0), (Phase::Warm, bytes)] {
        load(phase, "direct", &unlimited("direct"), owned + cached);
        load(phase, "buffered", &unlimited("buffered"), owned + cached);
        load(phase, "auto", &unlimited("auto"), owned + cached);
        load(phase, "mapped", &unlimited("mapped"), cached);
    }
    load(Phase::Cold, "auto (streamed)", &(unlimited("auto") + " --drop"), 0);
    if let Some(cap) = workload.cap_bytes {
        let name = format!("auto, at most {}", format::size(cap));
        load(Phase::Cold, &name, &format!("--read-path=auto --memory-limit={cap}"), 0);
    }
    for (name, kind, times) in [
        ("memcpy", "memcpy", 2),
        ("memcpy, huge pages", "memcpy-huge", 2),
        ("mmap and touch", "mmap-touch", 0),
        ("fresh memory", "fresh-memory", 1),
        ("plain read", "plain-read", 1),
    ] {
        let needs_bytes = bytes * times + owned;
        rows.push(reference(workload, Phase::Floor, name.into(), kind, needs_bytes));
    }
    rows.sort_by_key(|row| row.phase);
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
        let options = format!("--chunk={chunk_bytes} --depth={depth}");
        let mut limit = |name, kind: &str, needs_bytes| {
            let arguments = format!("{options} {kind}");
            rows.push(reference(workload, Phase::Limit, name, &arguments, needs_bytes));
        };
        limit(format!("io_uring {shape}"), "direct", 0);
        limit(format!("io_uring {shape}, kept"), "direct --keep", owned);
        if with_fio {
            limit(format!("fio {shape}"), "fio", 0);
        }
    }
    rows
}

/// A reference measurement with these arguments, which are separated by spaces.
fn reference(
    workload: &Workload,
    phase: Phase,
    name: String,
    arguments: &str,
    needs_bytes: u64,
) -> Row {
    let arguments = ["bench-reference"].into_iter().chain(arguments.split_whitespace());
    let arguments = arguments.chain(["--"]).map(OsString::from);
    let arguments = arguments.chain(workload.files.iter().map(OsString::from)).collect();
    Row { phase, name, arguments, needs_bytes, runs: Vec::new() }
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

    pub fn peak_bytes(&self) -> Option<u64> {
        self.runs.iter().filter_map(|run| run.peak_rss_bytes).max()
    }

    /// The difference between the longest and the shortest run, as a share of the median.
    pub fn spread(&self) -> Option<f64> {
        let seconds = self.runs.iter().map(|run| run.seconds);
        let (least, most) = (seconds.clone().reduce(f64::min)?, seconds.reduce(f64::max)?);
        let median = self.median(|run| run.seconds)?;
        (median > 0.0).then(|| (most - least) / median)
    }

    /// The median of a figure of all runs.
    pub fn median(&self, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
        median(&self.runs.iter().map(figure).collect::<Vec<_>>())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A measured row of one gigabyte.
    pub fn measured(phase: Phase, seconds: &[f64], cpu: f64, peak: u64) -> Row {
        let runs = seconds.iter().map(|&seconds| Figures {
            bytes: 1_000_000_000,
            seconds,
            cpu_seconds: cpu,
            peak_rss_bytes: Some(peak),
            ..Figures::default()
        });
        let (name, arguments) = ("a row".into(), Vec::new());
        Row { phase, name, arguments, needs_bytes: 0, runs: runs.collect() }
    }

    fn rows(cap_bytes: Option<u64>, fio: bool) -> Vec<Row> {
        let files = ["/m/a".into()];
        all(&Workload { location: "/m".as_ref(), files: &files, bytes: 1 << 30, cap_bytes }, fio)
    }

    #[test]
    fn the_spread_is_a_share_of_the_median() {
        let row = measured(Phase::Cold, &[1.0, 0.9, 1.2], 0.1, 0);
        assert!((row.spread().unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(measured(Phase::Cold, &[], 0.1, 0).spread(), None);
    }

    #[test]
    fn rows_are_left_out_where_there_is_nothing_to_measure() {
        let count = |cap, fio, name: &str| {
            rows(cap, fio).iter().filter(|row| row.name.starts_with(name)).count()
        };
        assert_eq!(count(None, false, "auto, at most"), 0);
        assert_eq!(count(Some(1 << 20), false, "auto, at most"), 1);
        assert_eq!((count(None, false, "io_uring"), count(None, false, "fio")), (4, 0));
        assert_eq!(count(None, true, "fio"), 2);
    }

    #[test]
    fn files_are_not_parsed_as_options() {
        let rows = rows(None, false);
        let row = rows.iter().find(|row| row.name == "mmap and touch").unwrap();
        assert_eq!(row.arguments, ["bench-reference", "mmap-touch", "--", "/m/a"]);
        let row = rows.iter().find(|row| row.name == "auto").unwrap();
        assert!(row.arguments.ends_with(&["--".into(), "/m".into()]), "{row:?}");
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
