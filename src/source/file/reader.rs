//! One engine's reader of one file: picks direct or buffered for each attempt.

use super::{FileSource, OpenFile};
use crate::options::ReadPath;
use crate::ring::Window;
use crate::source::{
    Attempt, Backend, BackendKind, Downgrade, LocalFuture, Reader, Via, resident_bytes,
};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A read goes to the page cache when this share of it is there, in eighths. What is cached comes
/// two to three times as fast from there as from a disk of 2.5 GB/s; what is not takes twice as long
/// through the cache as directly. So it has to be nearly all of it.
const RESIDENT_EIGHTHS: u64 = 7;

pub(super) struct FileReader {
    source: Arc<FileSource>,
    open: Arc<OpenFile>,
    backend: Backend,
    path: ReadPath,
    direct_refused: Cell<bool>,
}

impl FileReader {
    pub(super) fn new(
        source: Arc<FileSource>,
        open: Arc<OpenFile>,
        backend: Backend,
        path: ReadPath,
    ) -> Self {
        let direct_refused = Cell::new(path != ReadPath::Buffered && source.direct(&open).is_err());
        Self { source, open, backend, path, direct_refused }
    }

    /// The descriptor for direct reads, if this read should be one.
    fn direct(&self, window: &mut Window, offset: u64) -> Option<&Arc<File>> {
        if self.direct_refused.get() || self.path == ReadPath::Buffered {
            return None;
        }
        let file = self.source.direct(&self.open).ok()?;
        let len = window.unfilled_len() as u64;
        let mask = self.source.block_bytes as u64 - 1;
        let aligned = (offset | len | window.unfilled_ptr() as u64) & mask == 0;
        (aligned && !self.is_resident(offset, len)).then_some(file)
    }

    fn is_resident(&self, offset: u64, len: u64) -> bool {
        let len = len.min(self.source.identity.len_bytes.saturating_sub(offset));
        self.path == ReadPath::Auto
            && resident_bytes(&self.open.buffered, offset, len)
                .is_ok_and(|resident| resident * 8 >= len * RESIDENT_EIGHTHS)
    }
}

impl Reader for FileReader {
    fn read_at<'a>(
        &'a self,
        mut window: Window,
        offset: u64,
    ) -> LocalFuture<'a, (io::Result<Attempt>, Window)> {
        Box::pin(async move {
            let (file, via) = match self.direct(&mut window, offset) {
                Some(file) => (file, Via::Direct),
                None => (&self.open.buffered, Via::Buffered),
            };
            let (outcome, window) = self.backend.read(file, window, offset).await;
            (outcome.map(|bytes| Attempt { bytes, via }), window)
        })
    }

    fn refused(&self) -> Option<Downgrade> {
        let wanted = self.path != ReadPath::Buffered;
        let why = wanted.then(|| self.source.direct(&self.open).err())??;
        Some(Downgrade { from: "direct", to: "buffered", why: why.clone() })
    }

    fn steps_down(&self) -> usize {
        usize::from(self.direct_refused.get())
            + usize::from(self.backend.rung() == BackendKind::Pread)
    }

    fn downgrade(&self, refusal: &io::Error) -> Option<Downgrade> {
        let why = refusal.to_string();
        if self.path != ReadPath::Buffered && !self.direct_refused.replace(true) {
            return Some(Downgrade { from: "direct", to: "buffered", why });
        }
        let from = self.backend.rung().as_str();
        self.backend.downgrade().then_some(Downgrade { from, to: "pread", why })
    }
}
