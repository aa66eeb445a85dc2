//! The read path by GPUDirect Storage: GPUs read extents by themselves.
//!
//! There is no ring and no slot. Each thread takes the next extent and lets cuFile read its parts to
//! where they go on the GPU, waiting for each; so as many reads are in flight as there are threads.
//! Between reads a thread looks whether the load was stopped; so when the threads have been joined,
//! no read is left.
//!
//! What cuFile refuses in mid-load is read plainly and copied to the GPU, and so is all that comes
//! after: a step down like any other, told in the summary. Bytes are never taken on trust: a read
//! that comes short is continued where it ended, one that ends before the file does is an error.

use super::fill::ended_early;
use super::{Completion, Shared};
use crate::device::cuda::{GdsGpu, RegisteredFile, Target};
use crate::error::{Error, Result};
use crate::plan::Extent;
use crate::source::{DirectFile, Downgrade, Source, Via, stopped};
use crate::tensor::LoadedTensors;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How often cuFile is asked again after a passing refusal (EINTR and the like).
const RETRIES_MAX: u32 = 16;

pub(crate) struct GdsWork {
    extents: Arc<[Extent]>,
    sources: Vec<Arc<dyn Source>>,
    /// By source.
    files: Vec<File>,
    next_extent: AtomicUsize,
    /// Whether cuFile has refused a read of this load.
    refused: AtomicBool,
    bounce_bytes: usize,
    /// By place. After the files, which are let go while the contexts are there.
    gpus: Vec<GdsGpu>,
}

/// A source while it is being read.
struct File {
    open: Mutex<Option<Arc<Open>>>,
    /// Extents that are not in place yet.
    left: AtomicUsize,
}

struct Open {
    /// `None` once cuFile has refused something. Before the file, which it is let go before.
    registered: Option<RegisteredFile>,
    /// Keeps the file open also for the source, so that it is looked at and not opened again.
    _file: DirectFile,
}

impl GdsWork {
    /// Extents name their source and their GPU by index. Where cuFile refuses, each thread takes
    /// `bounce_bytes` of memory to read through.
    pub fn new(
        extents: Arc<[Extent]>,
        sources: Vec<Arc<dyn Source>>,
        gpus: Vec<GdsGpu>,
        bounce_bytes: usize,
    ) -> Self {
        let left = |source: usize| extents.iter().filter(|e| e.shard() == source).count();
        let file = |source| File { open: Mutex::new(None), left: AtomicUsize::new(left(source)) };
        Self {
            files: (0..sources.len()).map(file).collect(),
            extents,
            sources,
            next_extent: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            bounce_bytes: bounce_bytes.max(1),
            gpus,
        }
    }

    /// Works until nothing is left or the load is stopped.
    pub(super) fn run(&self, shared: &Shared, engine: usize) {
        let mut bounce = Vec::new();
        while !shared.is_cancelled() {
            let index = self.next_extent.fetch_add(1, Ordering::Relaxed);
            let Some(extent) = self.extents.get(index) else {
                return;
            };
            match self.bring(shared, engine, extent, &mut bounce) {
                Ok(all) => {
                    all.into_iter().for_each(|ready| shared.queue.push(Completion::Tensors(ready)))
                }
                Err(error) => shared.fail(error),
            }
        }
    }

    /// Brings an extent into place; gives the tensors that are whole now.
    fn bring(
        &self,
        shared: &Shared,
        engine: usize,
        extent: &Extent,
        bounce: &mut Vec<u8>,
    ) -> Result<Vec<LoadedTensors>> {
        let gpu = &self.gpus[extent.place()];
        if extent.len_bytes() == 0 {
            return Ok(vec![LoadedTensors::empty(extent.positions(), gpu.device())]);
        }
        let source = &*self.sources[extent.shard()];
        let open = self.open(shared, extent.shard())?;
        // Where cuFile refuses meanwhile, the summary and a downgrade say so.
        let via = match self.refused.load(Ordering::Relaxed) {
            true => Via::Buffered,
            false => Via::Gds,
        };
        let _mark = shared.mark(engine, extent, via);
        let ready = gpu.bring(extent, |target| {
            let read = match &open.registered {
                Some(file) if !self.refused.load(Ordering::Relaxed) => {
                    self.read(shared, source, file, target)?
                }
                _ => 0,
            };
            self.read_plainly(shared, source, target, read, bounce)
        })?;
        source.check_unchanged()?;
        drop(open);
        self.leave(extent.shard());
        Ok(ready)
    }

    /// Lets cuFile read a part; gives how many bytes came, which is less than all where it refused.
    fn read(
        &self,
        shared: &Shared,
        source: &dyn Source,
        file: &RegisteredFile,
        target: &Target<'_>,
    ) -> Result<u64> {
        let (mut done, mut retries) = (0, 0);
        while done < target.len_bytes() {
            if shared.is_cancelled() {
                return Err(stopped());
            }
            let began = Instant::now();
            match target.read(file, done) {
                Ok(0) => return Err(ended_early(source, target.offset_bytes() + done)),
                Ok(read) => {
                    (done, retries) = (done + read, 0);
                    shared.stats.read(Via::Gds, read);
                    crate::metrics::read(source.kind(), Via::Gds.as_str(), read, began.elapsed());
                }
                Err(refusal) if refusal.is_passing() && retries < RETRIES_MAX => {
                    retries += 1;
                    shared.stats.counters.retry("interrupted");
                }
                Err(refusal) => {
                    self.step_down(shared, format!("{}: {refusal}", source.location()));
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }

    /// Reads what follows upon the first `done` bytes of a part through the page cache.
    fn read_plainly(
        &self,
        shared: &Shared,
        source: &dyn Source,
        target: &Target<'_>,
        mut done: u64,
        bounce: &mut Vec<u8>,
    ) -> Result<()> {
        while done < target.len_bytes() {
            if shared.is_cancelled() {
                return Err(stopped());
            }
            bounce.resize(self.bounce_bytes, 0);
            let began = Instant::now();
            let len = (bounce.len() as u64).min(target.len_bytes() - done);
            let bytes = &mut bounce[..len as usize];
            source.read_exact_at(bytes, target.offset_bytes() + done).map_err(|failure| {
                let failed = Error::from_io(format_args!("read {}", source.location()), failure);
                source.check_unchanged().err().unwrap_or(failed)
            })?;
            target.write(done, bytes)?;
            done += len;
            shared.stats.read(Via::Buffered, len);
            crate::metrics::read(source.kind(), Via::Buffered.as_str(), len, began.elapsed());
        }
        Ok(())
    }

    /// The source's file, opened and registered by the first thread that needs it.
    fn open(&self, shared: &Shared, source: usize) -> Result<Arc<Open>> {
        let mut open = self.files[source].open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*open {
            return Ok(Arc::clone(open));
        }
        let file = self.sources[source].direct_file()?;
        let registered = RegisteredFile::new(Arc::clone(file.descriptor())).map_err(|why| {
            self.step_down(shared, format!("{}: {why}", self.sources[source].location()));
        });
        let opened = Arc::new(Open { registered: registered.ok(), _file: file });
        Ok(Arc::clone(open.insert(opened)))
    }

    /// An extent of the source is in place; with the last one its file is let go.
    fn leave(&self, source: usize) {
        let file = &self.files[source];
        if file.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            file.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    fn step_down(&self, shared: &Shared, why: String) {
        // The others that were refused at the same time have nothing to add.
        if !self.refused.swap(true, Ordering::Relaxed) {
            shared.stats.downgrade(Downgrade { from: "gds", to: "buffered", why });
        }
    }
}
