//! An engine's reader of a file, which chooses direct or buffered reads for each attempt.
//!
//! Bytes that are in the page cache are copied by the engine itself. io_uring would copy them too when
//! the read is submitted, but one read after the other: of three reads that an engine submits together,
//! the first would wait for the copies of the others, and for tmpfs it would start threads. A copy that is
//! handed on at once needs a third of the slots.
//!
//! Reads that wait for a file system in their system call are made by threads, and as many of them at a
//! time as help ([`ColdReads`](super::file::ColdReads)). These *cold reads* are:
//!
//! - Those of a file that refuses direct I/O and is not in the page cache. The kernel reads ahead by
//!   128 KiB only, each of which waits for the file system. So the threads bring the bytes into the
//!   page cache in larger parts first ([`bring_in`]).
//! - Direct reads through FUSE. Where the file system does not permit `FUSE_ASYNC_DIO`, io_uring waits
//!   for each of them when it is submitted, so one is made after the other. 1 GiB with 20 ms a request
//!   took 11.5 s.

use super::backend::{Backend, BackendKind};
use super::counters::LoadCounters;
use super::file::OpenFile;
use super::residency::{bring_in, resident_bytes};
use super::traits::{Access, Attempt, Downgrade, ReadFuture, Reader, Via};
use crate::options::ReadPath;
use crate::ring::Window;
use crate::sys;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A read goes through the page cache if the cache holds at least this many eighths of its bytes.
/// Cached bytes are read two to three times as fast as from a disk of 2.5 GB/s; uncached bytes take
/// twice as long through the cache as with direct reads. So nearly all of it has to be cached.
const RESIDENT_EIGHTHS: u64 = 7;
/// The shortest cold read: what the kernel reads ahead.
const COLD_BYTES_MIN: u64 = 128 << 10;

pub(super) struct FileReader {
    open: Arc<OpenFile>,
    block_bytes: usize,
    backend: Backend,
    path: ReadPath,
    direct_refused: Cell<bool>,
    counters: Arc<LoadCounters>,
}

/// How one attempt reads.
enum Path<'a> {
    Direct(&'a Arc<File>),
    /// Direct, of a file system that may make the caller wait.
    ColdDirect(&'a Arc<File>),
    /// From the page cache, which holds at least [`RESIDENT_EIGHTHS`].
    Cached,
    Buffered,
    /// Buffered, of a file that refuses direct I/O and is not in the page cache.
    Cold,
}

impl FileReader {
    /// A reader of `open`, whose direct reads are aligned to `block_bytes`.
    pub fn new(open: Arc<OpenFile>, block_bytes: usize, access: &Access) -> Self {
        let (backend, path) = (access.backend.clone(), access.path);
        let direct_refused = Cell::new(path != ReadPath::Buffered && open.direct().is_err());
        let counters = Arc::clone(&access.counters);
        Self { open, block_bytes, backend, path, direct_refused, counters }
    }

    /// Whether the file refuses direct reads.
    fn is_refused(&self) -> bool {
        self.direct_refused.get() || self.open.direct().is_err()
    }

    /// The descriptor for direct reads, if this read can be direct.
    fn direct(&self, window: &mut Window, offset: u64) -> Option<&Arc<File>> {
        if self.path == ReadPath::Buffered || self.direct_refused.get() {
            return None;
        }
        let file = self.open.direct().ok()?;
        let len = window.unfilled_len() as u64;
        let mask = self.block_bytes as u64 - 1;
        let aligned = (offset | len | window.unfilled_ptr() as u64) & mask == 0;
        aligned.then_some(file)
    }

    /// How to read the `len` bytes from `offset`, for which there may be a descriptor for direct reads.
    fn choose<'a>(&self, direct: Option<&'a Arc<File>>, offset: u64, len: u64) -> Path<'a> {
        let is_resident = || {
            resident_bytes(&self.open.buffered, offset, len)
                .is_ok_and(|resident| resident * 8 >= len * RESIDENT_EIGHTHS)
        };
        let (may_wait, may_copy) =
            (len >= COLD_BYTES_MIN, direct.is_none() || self.path != ReadPath::Direct);
        match direct {
            // Asking tmpfs how much it has takes 3 % of the time of a copy.
            _ if may_copy && (self.open.is_in_memory() || is_resident()) => Path::Cached,
            Some(file) if may_wait && self.open.is_fuse() => Path::ColdDirect(file),
            Some(file) => Path::Direct(file),
            None if may_wait && self.is_refused() => Path::Cold,
            None => Path::Buffered,
        }
    }

    /// Copies bytes from the page cache on this thread. `None` if it would have to wait for them.
    fn copy_cached(&self, window: &mut Window, offset: u64) -> Option<usize> {
        let (file, into) = (&self.open.buffered, window.unfilled_mut());
        let copied = match self.open.is_in_memory() {
            true => nix::sys::uio::pread(file, into, offset as i64).ok(),
            false => sys::read_cached(file, into, offset).ok(),
        };
        copied.filter(|&bytes| bytes > 0)
    }

    /// Reads from `file` at `offset` on a thread, after `before` has run there.
    async fn read_cold(
        &self,
        file: &Arc<File>,
        before: impl FnOnce() + Send + 'static,
        window: Window,
        offset: u64,
    ) -> (io::Result<usize>, Window) {
        let reads = self.counters.cold_reads();
        self.open.is_cold.store(true, Ordering::Relaxed);
        if reads.begin(Instant::now()) {
            self.counters.cold_reads_changed();
        }
        let read = self.backend.read_after(before, file, window, offset, reads.at_a_time()).await;
        if reads.end(read.0.as_ref().map_or(0, |&bytes| bytes), Instant::now()) {
            self.counters.cold_reads_changed();
        }
        read
    }
}

impl Reader for FileReader {
    fn read_at(&self, mut window: Window, offset: u64) -> ReadFuture<'_> {
        Box::pin(async move {
            let left = self.open.identity.len_bytes.saturating_sub(offset);
            let len = left.min(window.unfilled_len() as u64);
            let direct = self.direct(&mut window, offset);
            let buffered = &self.open.buffered;
            let path = self.choose(direct, offset, len);
            if let Path::Cached = path
                && let Some(bytes) = self.copy_cached(&mut window, offset)
            {
                return (Ok(Attempt { bytes, via: Via::Buffered }), window);
            }
            let ((outcome, window), via) = match path {
                Path::Direct(file) => (self.backend.read(file, window, offset).await, Via::Direct),
                Path::ColdDirect(file) => {
                    (self.read_cold(file, || (), window, offset).await, Via::Direct)
                }
                Path::Cold => {
                    let file = Arc::clone(buffered);
                    let before = move || bring_in(&file, offset, len);
                    (self.read_cold(buffered, before, window, offset).await, Via::Buffered)
                }
                Path::Cached | Path::Buffered => {
                    (self.backend.read(buffered, window, offset).await, Via::Buffered)
                }
            };
            (outcome.map(|bytes| Attempt { bytes, via }), window)
        })
    }

    fn initial_downgrade(&self) -> Option<Downgrade> {
        let wanted = self.path != ReadPath::Buffered;
        let why = wanted.then(|| self.open.direct().err())??;
        Some(Downgrade { from: "direct", to: "buffered", why: why.clone() })
    }

    fn downgrade_count(&self) -> usize {
        usize::from(self.direct_refused.get())
            + usize::from(self.backend.kind() == BackendKind::Pread)
    }

    fn downgrade(&self, refusal: &io::Error) -> Option<Downgrade> {
        let why = refusal.to_string();
        if self.path != ReadPath::Buffered && !self.direct_refused.replace(true) {
            return Some(Downgrade { from: "direct", to: "buffered", why });
        }
        let from = self.backend.kind().as_str();
        self.backend.downgrade().then_some(Downgrade { from, to: "pread", why })
    }
}
