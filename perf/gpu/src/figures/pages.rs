//! Copies of cached files straight from the page cache, without a ring: would a load that registers
//! the pages of files be faster, or cost less processor time, than one that copies them into pinned
//! memory? The speed of copies from pinned memory (step `cached`) is the limit of both.

use super::{Large, Part, each, make_warm, size};
use crate::checkpoints::check_equal;
use crate::gpu::{MappedFile, Memory, mapped_files_seconds};
use crate::record::Recorder;
use anyhow::Result;
use ringload_measure::figures::{Figures, Stopwatch};

/// How many files are copied.
const FILES: usize = 2;
/// The numbers of threads, and the bytes of a window.
const SHAPES: [(usize, usize); 4] = [(1, 32 << 20), (4, 32 << 20), (8, 32 << 20), (8, 4 << 20)];

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let files = Large::open(part)?.disk.first(FILES).files;
    make_warm(&files)?;
    let mapped = files.iter().map(|file| MappedFile::open(file)).collect::<Result<Vec<_>>>()?;
    recorder.check("pages: the bytes of a file", || {
        let to = Memory::new(part.gpu, mapped[0].len())?;
        mapped_files_seconds(part.gpu, &mapped[..1], &to, SHAPES[0].1, SHAPES[0].0)?;
        check_equal("a file", &to.read()?, &std::fs::read(&files[0])?)?;
        Ok(1)
    });
    let bytes: usize = mapped.iter().map(MappedFile::len).sum();
    let to = Memory::new(part.gpu, bytes)?;
    let mut runs = SHAPES.map(|_| Vec::new());
    for _ in part.clock.take() {
        for ((threads, window), runs) in SHAPES.into_iter().zip(&mut runs) {
            let stopwatch = Stopwatch::start()?;
            mapped_files_seconds(part.gpu, &mapped, &to, window, threads)?;
            runs.push(stopwatch.figures(bytes as u64)?);
            record(recorder, (threads, window), bytes, runs);
        }
    }
    Ok(())
}

fn record(
    recorder: &mut Recorder,
    (threads, window): (usize, usize),
    bytes: usize,
    runs: &[Figures],
) {
    let what = format!(
        "{} of registered pages, windows of {}, {threads} threads",
        size(bytes as u64),
        size(window as u64)
    );
    recorder.add(what.clone(), "GB/s", &each(runs, Figures::gigabytes_per_second), None);
    let cpu = each(runs, Figures::cpu_seconds_per_gigabyte);
    recorder.add(format!("{what}: CPU time"), "CPU-s/GB", &cpu, None);
}
