//! Loads of files that are not in the page cache, compared with the speed of direct reads.
//!
//! The limit is measured as in `ringload bench`: `ringload bench-reference direct` keeps many
//! O_DIRECT reads in flight on one io_uring, into a few buffers whose content is not used. If
//! io_uring is not available, threads with `pread` do the same here. The first turn tries all
//! shapes, and the faster half of them is kept. If the disk is slow, fewer files are read.

use super::{Large, Part, load, loader, loads};
use crate::checkpoints::Written;
use crate::children::output_of;
use crate::places::Places;
use crate::report::{Report, Target};
use crate::turns::Samples;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use ringload::internals::resident_bytes;
use ringload::internals::{PAGE_BYTES, Ring};
use ringload::{Error, ErrorKind, MemoryLimit, Result};
use serde::Deserialize;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const LEAST: f64 = 0.97;
/// The approximate limit of the time of one measurement.
const SECONDS: f64 = 3.0;
/// The bytes that may remain in the page cache.
const RESIDENT_MOST: f64 = 0.002;

/// A shape of direct reads: the number of concurrent reads and their size.
#[derive(Debug, Clone, Copy)]
enum Bare {
    Uring { chunk: usize, depth: usize },
    Threads { chunk: usize, depth: usize },
}

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, chunk, depth) = match self {
            Bare::Uring { chunk, depth } => ("io_uring", chunk, depth),
            Bare::Threads { chunk, depth } => ("pread", chunk, depth),
        };
        write!(f, "{name} {} x {depth}", super::size(*chunk as u64))
    }
}

const SHAPES: [Bare; 4] = [
    Bare::Uring { chunk: 8 << 20, depth: 64 },
    Bare::Uring { chunk: 4 << 20, depth: 8 },
    Bare::Uring { chunk: 2 << 20, depth: 32 },
    Bare::Threads { chunk: 4 << 20, depth: 16 },
];

/// The output of `ringload bench-reference`.
#[derive(Debug, Deserialize)]
struct Said {
    bytes: u64,
    seconds: f64,
}

pub fn measure(part: &Part<'_>, large: &Large, report: &mut Report) -> Result<()> {
    let (shapes, written) = probe(part, large, report)?;
    let loader = loader(part, MemoryLimit::Unlimited);
    let (mut limit, mut speeds, mut cpu) = <(Samples, Samples, Samples)>::default();
    for turn in part.clock.take() {
        let mut best = 0.0_f64;
        for shape in &shapes {
            make_cold(&written.files)?;
            best = best.max(shape.gigabytes_per_second(part.places, &written.files)?);
        }
        limit.add(turn, best);
        make_cold(&written.files)?;
        let loaded = load(&loader, &written, part.places.device, turn.warms_up)?;
        speeds.add(turn, loaded.gigabytes_per_second);
        cpu.add(turn, loaded.cpu_seconds_per_gigabyte);
        if turn.warms_up {
            loads::note(report, "from the disk", &loaded);
        }
    }
    let what = super::size(written.bytes());
    let shapes: Vec<_> = shapes.iter().map(Bare::to_string).collect();
    report.explain(
        format!("direct reads of {what}, the better of {}", shapes.join(" and ")),
        "GB/s",
        &limit,
    );
    report.explain(format!("{what} from the disk"), "GB/s", &speeds);
    report.explain(format!("{what} from the disk: CPU time"), "CPU-s/GB", &cpu);
    let ratio = speeds.over(&limit);
    report.judge(
        format!("{what} from the disk / direct reads"),
        "",
        &ratio,
        Target::AtLeast(LEAST),
    );
    Ok(())
}

/// The faster half of the shapes that work here, and as many files as can be read in a short time.
fn probe(part: &Part<'_>, large: &Large, report: &mut Report) -> Result<(Vec<Bare>, Written)> {
    let first = large.disk.first(1);
    let mut working = Vec::new();
    let mut refused = None;
    for shape in SHAPES {
        make_cold(&first.files)?;
        match shape.gigabytes_per_second(part.places, &first.files) {
            Ok(speed) => working.push((speed, shape)),
            Err(error) => {
                report.notes.push(format!("direct reads, {shape}: {error}"));
                refused = Some(error);
            }
        }
    }
    working.sort_by(|one, other| other.0.total_cmp(&one.0));
    working.truncate(SHAPES.len() / 2);
    let Some(&(fastest, _)) = working.first() else {
        let none = || Error::new(ErrorKind::Unsupported, "no direct reads work here");
        return Err(refused.unwrap_or_else(none));
    };
    let gigabytes_each = first.bytes() as f64 / 1e9;
    let count = (fastest * SECONDS / gigabytes_each).max(1.0) as usize;
    Ok((working.into_iter().map(|(_, shape)| shape).collect(), large.disk.first(count)))
}

/// Evicts (nearly) all of the files from the page cache.
fn make_cold(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let cold = |error| {
            Error::from_io(format_args!("drop {} from the page cache", path.display()), error)
        };
        let file = File::open(path).map_err(cold)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|error| cold(error.into()))?;
        let len = file.metadata().map_err(cold)?.len();
        let resident = resident_bytes(&file, 0, len).map_err(cold)?;
        if resident as f64 > len as f64 * RESIDENT_MOST {
            let sentence = format!(
                "{resident} of {len} bytes of {} stay in the page cache; name a directory on a disk \
                 (--dir)",
                path.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
    }
    Ok(())
}

impl Bare {
    fn gigabytes_per_second(self, places: &Places, files: &[PathBuf]) -> Result<f64> {
        let Said { bytes, seconds } = match self {
            Bare::Uring { chunk, depth } => {
                let mut command = Command::new(&places.ringload);
                command.arg("bench-reference");
                command.args([format!("--chunk={chunk}"), format!("--depth={depth}")]);
                output_of(command.args(["direct", "--"]).args(files))?
            }
            Bare::Threads { chunk, depth } => read_by_threads(files, chunk, depth)
                .map_err(|error| Error::from_io("read files directly", error))?,
        };
        Ok(bytes as f64 / seconds / 1e9)
    }
}

/// Reads all files with `depth` concurrent reads of `chunk` bytes. Each thread has its own buffer,
/// which was faulted in before.
fn read_by_threads(paths: &[PathBuf], chunk: usize, depth: usize) -> io::Result<Said> {
    let mut files = Vec::new();
    let mut reads = Vec::new();
    for path in paths {
        let flags = OFlag::O_DIRECT.bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let len = file.metadata()?.len();
        let read = |offset: u64| (files.len(), offset, (len - offset).min(chunk as u64) as usize);
        reads.extend((0..len).step_by(chunk).map(read));
        files.push(file);
    }
    let ring = Ring::new(chunk * depth, PAGE_BYTES).map_err(io::Error::other)?;
    ring.populate(ring.capacity(), 1)?;
    let slots = (0..depth).filter_map(|_| ring.allocate(chunk));
    let mut buffers: Vec<_> = slots.filter_map(|slot| slot.into_windows(&[chunk]).pop()).collect();
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let read_some = |buffer: &mut [u8]| -> io::Result<u64> {
        let mut bytes = 0;
        while let Some(&(file, offset, want)) = reads.get(next.fetch_add(1, Ordering::Relaxed)) {
            // The last read of a file ends within a block and requests the whole block.
            if files[file].read_at(buffer, offset)? < want {
                return Err(io::Error::other("a direct read came back short"));
            }
            bytes += want as u64;
        }
        Ok(bytes)
    };
    let bytes = thread::scope(|scope| {
        let threads: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| scope.spawn(|| read_some(buffer.unfilled_mut())))
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.sum::<io::Result<u64>>()
    })?;
    Ok(Said { bytes, seconds: began.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_read_every_byte() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<_> = [100_000_usize, 4096, 0, 5000]
            .into_iter()
            .map(|len| {
                let path = directory.path().join(len.to_string());
                std::fs::write(&path, vec![7; len]).unwrap();
                path
            })
            .collect();
        match read_by_threads(&paths, 16 << 10, 3) {
            Ok(said) => assert_eq!(said.bytes, 109_096),
            // The temporary directory does not support direct reads: nothing to test.
            Err(refused) => eprintln!("skipped: {refused}"),
        }
    }
}
