//! `ringload bench-reference`: one reference measurement in this process. It prints the figures that
//! a load prints. `ringload bench` starts this hidden subcommand.
//!
//! Time and CPU time are measured from the end of the preparation (files opened, source buffers
//! filled) to the last byte.

use super::bare::{DirectReads, MappedFiles};
use super::fio;
use crate::failure::Outcome;
use crate::output;
use clap::ValueEnum;
use ringload::Error;
use ringload::internals::{PAGE_BYTES, Ring, open_regular};
use ringload_measure::figures::{Figures, Stopwatch};
use std::hint::black_box;
use std::io::{self, Read};
use std::path::PathBuf;

/// A reference measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reference {
    /// O_DIRECT reads into reused buffers with io_uring.
    Direct,
    /// The same with pread(2), on one thread per read in flight.
    DirectThreads,
    /// A copy of as many bytes from memory into fresh memory by one thread.
    Memcpy,
    /// A copy as by `Memcpy`, into memory that is advised for huge pages.
    MemcpyHuge,
    /// A read of one byte of each page of the mapped files.
    MmapTouch,
    /// Faulting in as many bytes of memory that is advised for huge pages, on one thread.
    FreshMemory,
    /// Reads of the files, one after the other, into one vector.
    PlainRead,
    /// O_DIRECT reads by fio, which has to be installed.
    Fio,
}

/// Run one reference measurement (started by `ringload bench`)
#[derive(Debug, clap::Args)]
pub struct Args {
    kind: Reference,
    /// Bytes of a direct read
    #[arg(long, default_value_t = 8 << 20)]
    chunk: usize,
    /// Direct reads in flight
    #[arg(long, default_value_t = 64)]
    depth: usize,
    /// Use a separate buffer for each direct read, faulted in beforehand
    #[arg(long)]
    keep: bool,
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// When a file cannot be read or the answer cannot be written.
pub fn run(args: Args) -> Outcome {
    let run = measure(&args)
        .map_err(|error| Error::from_io(format_args!("measure {:?}", args.kind), error))?;
    output::print_json(&run)
}

fn measure(args: &Args) -> io::Result<Figures> {
    let mut total = 0;
    for file in &args.files {
        total += file.metadata()?.len() as usize;
    }
    match args.kind {
        Reference::Direct | Reference::DirectThreads => {
            let reads = DirectReads::prepare(&args.files, args.chunk, args.depth, !args.keep)?;
            match args.kind {
                Reference::Direct => time(total, || reads.run_on_uring()),
                _ => time(total, || reads.run_on_threads()),
            }
        }
        Reference::Memcpy => {
            let source = vec![0x5A_u8; total];
            time(total, || Ok(black_box(source.as_slice().to_vec())))
        }
        Reference::MemcpyHuge => {
            let source = vec![0x5A_u8; total];
            time(total, || copy_into_ring(&source))
        }
        Reference::MmapTouch => time(total, || MappedFiles::touch(&args.files)),
        Reference::FreshMemory => time(total, || {
            let ring = Ring::new(total, PAGE_BYTES).map_err(io::Error::other)?;
            ring.populate(total, 1)?;
            Ok(ring)
        }),
        Reference::PlainRead => time(total, || read_all(&args.files, total)),
        Reference::Fio => fio::run(&args.files, args.chunk, args.depth),
    }
}

/// Measures `work`; its result is dropped after the measurement.
fn time<T>(bytes: usize, work: impl FnOnce() -> io::Result<T>) -> io::Result<Figures> {
    let stopwatch = Stopwatch::start()?;
    let result = work()?;
    let figures = stopwatch.figures(bytes as u64);
    drop(result);
    figures
}

fn copy_into_ring(source: &[u8]) -> io::Result<impl Sized> {
    let ring = Ring::new(source.len(), PAGE_BYTES).map_err(io::Error::other)?;
    let slot = ring.allocate(source.len()).ok_or(io::ErrorKind::OutOfMemory)?;
    let mut windows = slot.into_windows(&[source.len()]);
    for window in &mut windows {
        window.unfilled_mut().copy_from_slice(source);
    }
    Ok(windows)
}

fn read_all(files: &[PathBuf], total: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(total);
    for file in files {
        open_regular(file, "file").map_err(io::Error::other)?.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_can_be_measured() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        std::fs::write(&file, vec![1; 100_000]).unwrap();
        for &kind in Reference::value_variants().iter().filter(|&&kind| kind != Reference::Fio) {
            let files = vec![file.clone()];
            match measure(&Args { kind, chunk: 8192, depth: 2, keep: false, files }) {
                Ok(run) => assert_eq!(run.bytes, 100_000, "{kind:?}"),
                // Some sandboxes have no io_uring, and some file systems no direct reads.
                Err(refused) => {
                    let is_direct = matches!(kind, Reference::Direct | Reference::DirectThreads);
                    assert!(is_direct, "{refused}");
                }
            }
        }
    }
}
