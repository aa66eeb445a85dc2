//! An engine's reader of a file, which chooses direct or buffered reads for each attempt.

use super::backend::{Backend, BackendKind};
use super::file::OpenFile;
use super::residency::resident_bytes;
use super::traits::{Access, Attempt, Downgrade, ReadFuture, Reader, Via};
use crate::options::ReadPath;
use crate::ring::Window;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A read goes through the page cache if the cache holds at least this many eighths of its bytes.
/// Cached bytes are read two to three times as fast as from a disk of 2.5 GB/s; uncached bytes take
/// twice as long through the cache as with direct reads. So nearly all of it has to be cached.
const RESIDENT_EIGHTHS: u64 = 7;

pub(super) struct FileReader {
    open: Arc<OpenFile>,
    block_bytes: usize,
    backend: Backend,
    path: ReadPath,
    direct_refused: Cell<bool>,
}

impl FileReader {
    /// A reader of `open`, whose direct reads are aligned to `block_bytes`.
    pub fn new(open: Arc<OpenFile>, block_bytes: usize, access: &Access) -> Self {
        let (backend, path) = (access.backend.clone(), access.path);
        let direct_refused = Cell::new(path != ReadPath::Buffered && open.direct().is_err());
        Self { open, block_bytes, backend, path, direct_refused }
    }

    /// The descriptor for direct reads, if this read should be direct.
    fn direct(&self, window: &mut Window, offset: u64) -> Option<&Arc<File>> {
        if self.direct_refused.get() || self.path == ReadPath::Buffered {
            return None;
        }
        let file = self.open.direct().ok()?;
        let len = window.unfilled_len() as u64;
        let mask = self.block_bytes as u64 - 1;
        let aligned = (offset | len | window.unfilled_ptr() as u64) & mask == 0;
        (aligned && !self.is_resident(offset, len)).then_some(file)
    }

    fn is_resident(&self, offset: u64, len: u64) -> bool {
        let len = len.min(self.open.identity.len_bytes.saturating_sub(offset));
        self.path == ReadPath::Auto
            && resident_bytes(&self.open.buffered, offset, len)
                .is_ok_and(|resident| resident * 8 >= len * RESIDENT_EIGHTHS)
    }
}

impl Reader for FileReader {
    fn read_at(&self, mut window: Window, offset: u64) -> ReadFuture<'_> {
        Box::pin(async move {
            let (file, via) = match self.direct(&mut window, offset) {
                Some(file) => (file, Via::Direct),
                None => (&self.open.buffered, Via::Buffered),
            };
            let (outcome, window) = self.backend.read(file, window, offset).await;
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
