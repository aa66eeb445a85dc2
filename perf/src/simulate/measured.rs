//! Constants from a file of records, where measured values replace assumed ones.
//!
//! | constant | from |
//! | --- | --- |
//! | cores | the session |
//! | disk | scenario `local`, cold: the fastest client of role `limit` |
//! | whether zeroing overlaps | the same: a limit that reads into kept (fresh) memory, beside the fastest |
//! | CPU a GB, direct and buffered | scenario `local`, own runs that stream, cold and warm |
//! | fresh memory | own resident runs minus streaming ones, warm or else cold |
//! | http, https, the server | scenarios `http`, `https`, `s3`, own runs; the server's time beside |
//! | the start of the process | own runs: the time of the process minus that of the load |
//!
//! The kind of load is parsed from the names of its case and client: [`Shape`].

use super::constants::Constants;
use super::scenario::{Destination, Source};
use crate::records::{Case, Record, Role, Run};
use crate::stats::median;

/// The kind of load, as far as the simulation distinguishes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub source: Source,
    pub destination: Destination,
    pub ring_bytes: Option<f64>,
    pub verify: bool,
}

impl Shape {
    /// Parses the names of scenario, case and client. `None` for loads that are not simulated (mapped
    /// files, caches that are being filled, GPUs, thousands of tensors, other read paths than the
    /// default, and times from the start of the process).
    pub fn of(run: &Run, case: Option<&Case>) -> Option<Self> {
        let named = format!("{} {} {}", run.scenario, run.case, run.client).to_lowercase();
        let titled = case.map_or_else(String::new, |case| case.title.to_lowercase());
        let text = format!("{named} {titled}");
        let curve = case.and_then(|case| case.point.as_ref()).map(|point| point.curve.as_str());
        let unknown = [
            "mapped",
            "cache dir",
            "local cache",
            "cuda",
            "gpu",
            "gds",
            "tiny",
            "python",
            "planning",
        ];
        let is_told = [", direct", ", buffered"].iter().any(|path| named.contains(path));
        let is_other = ["cache", "adapter"].contains(&run.scenario.as_str());
        if is_told || is_other || unknown.iter().any(|word| named.contains(word)) {
            return None;
        }
        let is_remote = curve.is_some_and(|curve| curve.starts_with("connection"));
        let source = if text.contains("https") {
            Source::LoopbackTls
        } else if is_remote || text.contains("http") || text.contains("s3") {
            Source::Loopback
        } else if text.contains("warm") {
            Source::PageCache
        } else {
            Source::Disk
        };
        let resident = named.contains("resident") || named.contains("unlimited");
        Some(Self {
            source,
            destination: if resident { Destination::Resident } else { Destination::Stream },
            ring_bytes: bytes_in(&named).or_else(|| bytes_after(&titled, "limit")),
            verify: run.client.contains("verify"),
        })
    }
}

/// The first size in a text, such as 256MiB or "4 GiB".
fn bytes_in(text: &str) -> Option<f64> {
    let units = [("kib", 1024.0), ("mib", 1_048_576.0), ("gib", 1_073_741_824.0)];
    let starts = units.iter().filter_map(|&(unit, bytes)| text.find(unit).map(|at| (at, bytes)));
    let (at, unit_bytes) = starts.min_by_key(|&(at, _)| at)?;
    let before = text[..at].trim_end();
    let digits = before.rfind(|c: char| !c.is_ascii_digit() && c != '.').map_or(0, |at| at + 1);
    before[digits..].parse::<f64>().ok().map(|number| number * unit_bytes)
}

fn bytes_after(text: &str, word: &str) -> Option<f64> {
    text.find(word).and_then(|at| bytes_in(&text[at..]))
}

/// A run of ringload and its kind.
struct Own<'a> {
    run: &'a Run,
    shape: Shape,
}

/// The constants of a file of records, and defaults for the others.
pub fn from_records(records: &[Record]) -> Constants {
    over(records, &Constants::default())
}

/// As [`from_records`], with `constants` for those that are not in the records.
pub fn over(records: &[Record], constants: &Constants) -> Constants {
    let mut all = constants.clone();
    let own = own_runs(records);
    for record in records {
        if let Record::Session(session) = record {
            all.hardware.cores = session.machine.cores.max(1) as f64;
        }
    }
    disk(records, &mut all);
    local_costs(&own, &mut all);
    remote_costs(&own, &mut all);
    let starts = own.iter().map(|own| (own.run.process_seconds - own.run.seconds).max(0.0));
    set(&mut all.costs.process_start_seconds, &starts.collect::<Vec<_>>());
    all
}

/// The case of a run.
pub fn case_of<'a>(records: &'a [Record], run: &Run) -> Option<&'a Case> {
    records.iter().find_map(|record| match record {
        Record::Case(case) if case.scenario == run.scenario && case.case == run.case => Some(case),
        _ => None,
    })
}

pub fn runs(records: &[Record]) -> impl Iterator<Item = &Run> {
    records.iter().filter_map(|record| match record {
        Record::Run(run) => Some(run),
        _ => None,
    })
}

fn own_runs(records: &[Record]) -> Vec<Own<'_>> {
    let own = runs(records).filter(|run| run.role == Role::Own && run.bytes > 0);
    own.filter_map(|run| Some(Own { run, shape: Shape::of(run, case_of(records, run))? })).collect()
}

/// Sets the median if there is one and it is a valid divisor.
fn set(constant: &mut f64, figures: &[f64]) {
    if let Some(figure) = median(figures).filter(|figure| figure.is_finite()) {
        *constant = figure.max(1e-6);
    }
}

fn disk(records: &[Record], all: &mut Constants) {
    let is_cold = |run: &&Run| run.scenario == "local" && run.case.to_lowercase().contains("cold");
    let limits: Vec<_> =
        runs(records).filter(|run| run.role == Role::Limit).filter(is_cold).collect();
    let mut clients: Vec<_> = limits.iter().map(|run| run.client.as_str()).collect();
    clients.sort_unstable();
    clients.dedup();
    let is_fresh = |client: &str| client.contains("kept") || client.contains("fresh");
    let rate = |client: &str| {
        let of_client = limits.iter().filter(|run| run.client == client);
        median(&of_client.map(|run| run.gigabytes_per_second()).collect::<Vec<_>>())
    };
    // What copies memory is no limit of a disk.
    let reads = clients.iter().filter(|client| !client.contains("mem"));
    let reused = reads.filter(|client| !is_fresh(client)).filter_map(|client| rate(client));
    let Some(fastest) = reused.reduce(f64::max) else { return };
    all.hardware.disk_gb_per_second = fastest;
    let fresh = clients.iter().filter(|client| is_fresh(client)).filter_map(|client| rate(client));
    if let Some(fresh) = fresh.reduce(f64::max) {
        all.hardware.fresh_memory_overlaps_reads = fresh > 0.85 * fastest;
    }
}

fn cpu_of(
    own: &[Own<'_>],
    source: Source,
    destination: Destination,
    scenario: Option<&str>,
) -> Vec<f64> {
    let of_shape = own.iter().filter(|own| {
        let shape = &own.shape;
        shape.source == source && shape.destination == destination && !shape.verify
    });
    let of_scenario =
        of_shape.filter(|own| scenario.is_none_or(|scenario| own.run.scenario == scenario));
    of_scenario.map(|own| own.run.cpu_seconds_per_gigabyte()).collect()
}

fn local_costs(own: &[Own<'_>], all: &mut Constants) {
    let local = |source, destination| cpu_of(own, source, destination, Some("local"));
    let direct = local(Source::Disk, Destination::Stream);
    let of_requests = all.costs.request_cpu_seconds * 1e9 / all.design.chunk_bytes;
    let base: Vec<_> = direct.iter().map(|cpu| (cpu - of_requests).max(0.001)).collect();
    set(&mut all.costs.direct_cpu_seconds_per_gb, &base);
    let cold = local(Source::Disk, Destination::Resident);
    let warm = local(Source::PageCache, Destination::Resident);
    let warm_stream = local(Source::PageCache, Destination::Stream);
    set(&mut all.costs.buffered_cpu_seconds_per_gb, &warm_stream);
    let fresh = if warm_stream.is_empty() || warm.is_empty() {
        let less = all.costs.direct_cpu_seconds_per_gb + of_requests;
        cold.iter().map(|cpu| (cpu - less).max(0.001)).collect::<Vec<_>>()
    } else {
        let less = all.costs.buffered_cpu_seconds_per_gb;
        warm.iter().map(|cpu| (cpu - less).max(0.001)).collect()
    };
    set(&mut all.costs.fresh_memory_cpu_seconds_per_gb, &fresh);
    if warm_stream.is_empty() {
        let less = all.costs.fresh_memory_cpu_seconds_per_gb;
        let copies: Vec<_> = warm.iter().map(|cpu| (cpu - less).max(0.001)).collect();
        set(&mut all.costs.buffered_cpu_seconds_per_gb, &copies);
    }
}

fn remote_costs(own: &[Own<'_>], all: &mut Constants) {
    let of = |source| cpu_of(own, source, Destination::Stream, None);
    set(&mut all.costs.http_cpu_seconds_per_gb, &of(Source::Loopback));
    set(&mut all.costs.https_cpu_seconds_per_gb, &of(Source::LoopbackTls));
    let serves = |own: &&Own<'_>| own.shape.source == Source::Loopback;
    let served = own
        .iter()
        .filter(serves)
        .filter_map(|own| own.run.server_cpu_seconds.map(|seconds| seconds / own.run.gigabytes()));
    set(&mut all.costs.serve_cpu_seconds_per_gb, &served.collect::<Vec<_>>());
}
