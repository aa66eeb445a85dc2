//! The probes of `ringload doctor`, which make the same system calls as a load.

pub use crate::numa::{has_several_nodes, node_of, numbers_in};

use crate::device::cuda::CufileDriver;
use crate::error::{Error, ErrorKind, Result};
use crate::options::ReadPath;
use crate::ring::{PAGE_BYTES, Ring};
use crate::source::{Access, Backend, FileSource, Source, Via};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Checks that cuFile is installed and can read files directly to GPUs.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported), naming what is missing.
pub fn probe_gds() -> Result<()> {
    CufileDriver::open().map(drop).map_err(|why| Error::new(ErrorKind::Unsupported, why))
}

/// Checks that an engine can create its io_uring runtime.
///
/// # Errors
/// The error of the kernel.
pub fn probe_io_uring() -> Result<()> {
    runtime().map(drop)
}

/// Checks that `bytes` of ring memory can be registered with io_uring.
///
/// # Errors
/// The error of the kernel.
pub fn probe_registration(bytes: usize) -> Result<()> {
    let ring = Ring::new(bytes, PAGE_BYTES)?;
    let refusal = runtime()?.block_on(async { Backend::uring(Some(&ring)).1 });
    match refusal {
        None => Ok(()),
        Some(e) => Err(Error::from_io("register memory with io_uring", e)),
    }
}

/// Reads the first block of the file at `path` with O_DIRECT, as an engine does, and returns the
/// alignment of direct reads in bytes. The file has to be at least one block long.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) when the file system refuses O_DIRECT.
pub fn probe_direct(path: &Path) -> Result<usize> {
    let source = Arc::new(FileSource::open(path)?);
    let block = source.block_bytes();
    let ring = Ring::new(block, block)?;
    let mut windows =
        ring.allocate(block).map(|slot| slot.into_windows(&[block])).unwrap_or_default();
    let refused = |why: String| {
        let sentence = format!("{} refuses direct reads: {why}", path.display());
        Error::new(ErrorKind::Unsupported, sentence)
    };
    let (Some(window), true) = (windows.pop(), source.len_bytes() >= block as u64) else {
        return Err(refused(format!("it is shorter than a block of {block} bytes")));
    };
    let access = Access::new(Backend::pread(), ReadPath::Direct, Arc::default(), Arc::default());
    let reader = Arc::clone(&source).reader(&access)?;
    if let Some(downgrade) = reader.initial_downgrade() {
        return Err(refused(downgrade.why));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| Error::from_io("start a runtime", e))?;
    let (attempt, _window) = runtime.block_on(reader.read_at(window, 0));
    match attempt {
        Ok(attempt) if attempt.via == Via::Direct => Ok(block),
        Ok(_) => Err(refused("the read went through the page cache".to_owned())),
        Err(e) => Err(refused(e.to_string())),
    }
}

fn runtime() -> Result<tokio_uring::Runtime> {
    let build = || -> io::Result<_> {
        Backend::probe()?;
        tokio_uring::Runtime::new(&tokio_uring::builder())
    };
    build().map_err(|e| Error::from_io("set io_uring up", e))
}
