//! Loads of files that are not in the page cache, compared with the speed of direct reads.
//!
//! The limit is measured as in `ringload bench`: `ringload bench-reference` keeps many O_DIRECT reads
//! in flight, on one io_uring or, where io_uring is not available, by `pread` on threads, into a few
//! buffers whose content is not used. The first turn tries all shapes, and the faster half of them is
//! kept. If the disk is slow, fewer files are read.

use super::{Large, Loaded, Part, each, load, loader, note};
use crate::checkpoints::Written;
use crate::places::Places;
use crate::record::Recorder;
use anyhow::{Result, anyhow, ensure};
use ringload::MemoryLimit;
use ringload::internals::resident_bytes;
use ringload_measure::page_cache::CacheState;
use ringload_measure::process::Invocation;
use ringload_measure::stats::{Bound, ratios};
use std::fmt;

const LEAST: f64 = 0.97;
/// The approximate limit of the time of one measurement.
const SECONDS: f64 = 1.0;
/// The share of the bytes that may remain in the page cache.
const RESIDENT_MOST: f64 = 0.002;

/// A shape of direct reads: the kind of `ringload bench-reference`, the size of a read, and the number
/// of concurrent reads.
#[derive(Debug, Clone, Copy)]
struct Bare {
    kind: &'static str,
    chunk: usize,
    depth: usize,
}

const SHAPES: [Bare; 4] = [
    Bare { kind: "direct", chunk: 8 << 20, depth: 64 },
    Bare { kind: "direct", chunk: 4 << 20, depth: 8 },
    Bare { kind: "direct", chunk: 2 << 20, depth: 32 },
    Bare { kind: "direct-threads", chunk: 4 << 20, depth: 16 },
];

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.kind == "direct" { "io_uring" } else { "pread" };
        write!(f, "{name} {} x {}", super::size(self.chunk as u64), self.depth)
    }
}

impl Bare {
    /// The speed over `written`, which is made cold before.
    fn gigabytes_per_second(self, places: &Places, written: &Written) -> Result<f64> {
        make_cold(written)?;
        let options = [format!("--chunk={}", self.chunk), format!("--depth={}", self.depth)];
        let reads = Invocation::new(&places.ringload).arg("bench-reference").args(options);
        let reads = reads.args([self.kind, "--"]).args(&written.files);
        Ok(reads.figures()?.gigabytes_per_second())
    }
}

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let large = Large::open(part)?;
    let (shapes, written) = match probe(part, &large, recorder) {
        Ok(found) => found,
        Err(error) => {
            recorder.skip(format!("loads from the disk: {error:#}"));
            return Ok(());
        }
    };
    let loader = loader(part, MemoryLimit::Unlimited);
    let (mut limit, mut loads) = (Vec::new(), Vec::new());
    for turn in part.clock.take() {
        let mut best = 0.0_f64;
        for shape in &shapes {
            best = best.max(shape.gigabytes_per_second(part.places, &written)?);
        }
        limit.push(best);
        make_cold(&written)?;
        loads.push(load(part, &loader, &written, turn == 0)?);
        record(recorder, &shapes, &written, &limit, &loads);
    }
    Ok(())
}

fn record(
    recorder: &mut Recorder,
    shapes: &[Bare],
    written: &Written,
    limit: &[f64],
    loads: &[Loaded],
) {
    note(recorder, "from the disk", loads);
    let speeds = each(loads, Loaded::speed);
    let what = super::size(written.bytes());
    let shapes = shapes.iter().map(Bare::to_string).collect::<Vec<_>>().join(" and ");
    recorder.add(format!("direct reads of {what}, the better of {shapes}"), "GB/s", limit, None);
    recorder.add(format!("{what} from the disk"), "GB/s", &speeds, None);
    let cpu = each(loads, Loaded::cpu);
    recorder.add(format!("{what} from the disk: CPU time"), "CPU-s/GB", &cpu, None);
    let name = format!("{what} from the disk / direct reads");
    recorder.add(name, "", &ratios(&speeds, limit), (Bound::AtLeast, LEAST));
}

/// The faster half of the shapes that work here, and as many files as can be read in a short time.
fn probe(part: &Part<'_>, large: &Large, recorder: &mut Recorder) -> Result<(Vec<Bare>, Written)> {
    let first = large.disk.first(1);
    let mut working = Vec::new();
    let mut refused = anyhow!("no direct reads work here");
    for shape in SHAPES {
        match shape.gigabytes_per_second(part.places, &first) {
            Ok(speed) => working.push((speed, shape)),
            Err(error) => {
                recorder.note(format!("direct reads, {shape}: {error:#}"));
                refused = error;
            }
        }
    }
    working.sort_by(|one, other| other.0.total_cmp(&one.0));
    working.truncate(SHAPES.len() / 2);
    let Some(&(fastest, _)) = working.first() else { return Err(refused) };
    let gigabytes_each = first.bytes() as f64 / 1e9;
    let count = (fastest * SECONDS / gigabytes_each).max(1.0) as usize;
    Ok((working.into_iter().map(|(_, shape)| shape).collect(), large.disk.first(count)))
}

/// Evicts (nearly) all of the files from the page cache.
fn make_cold(written: &Written) -> Result<()> {
    let (resident, len) =
        (CacheState::Cold.prepare(&written.files, resident_bytes)?, written.bytes());
    ensure!(
        resident as f64 <= len as f64 * RESIDENT_MOST,
        "{resident} of {len} bytes stay in the page cache; name a directory on a disk (--dir)"
    );
    Ok(())
}
