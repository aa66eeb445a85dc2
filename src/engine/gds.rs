//! The read path through GPUDirect Storage, which reads extents directly into GPU memory.
//!
//! This path has no ring and no slots. Each thread takes the next extent and lets cuFile read its
//! parts into the memory of the GPU, one after the other, so each thread has one read in flight. A
//! thread checks between reads whether the load was stopped, so no read is left when the threads
//! have been joined.
//!
//! Parts that cuFile refuses to read, and all parts after them, are read through the page cache and
//! copied to the GPU. This is a downgrade that the summary reports. A short read is continued where it
//! ended; a read that ends before the end of the file is an error.

use super::fill::{RETRIES_MAX, ended_early};
use super::shared::Shared;
use crate::device::cuda::{GdsGpu, GdsTarget, RegisteredFile};
use crate::error::{Error, Result};
use crate::plan::Extent;
use crate::source::{DirectFile, Downgrade, Source, Via, stopped};
use crate::sync::Mutex;
use crate::tensor::LoadedTensors;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

pub(crate) struct GdsWork {
    extents: Arc<[Extent]>,
    sources: Vec<Arc<dyn Source>>,
    /// The file of each source.
    files: Vec<SourceFile>,
    next_extent: AtomicUsize,
    /// Whether cuFile has refused a read of this load.
    refused: AtomicBool,
    bounce_bytes: usize,
    /// The GPU of each destination. Declared after the files, which must be dropped while the CUDA
    /// contexts exist.
    gpus: Vec<GdsGpu>,
}

/// The file of a source while the source is being read.
struct SourceFile {
    open: Mutex<Option<Arc<OpenFile>>>,
    /// How many extents of the source are not loaded yet.
    extents_left: AtomicUsize,
}

struct OpenFile {
    /// `None` if cuFile refused the file. Declared before the file, as it must be dropped first.
    registered: Option<RegisteredFile>,
    /// Keeps the source's file open, so that the source need not open it again.
    _file: DirectFile,
}

impl GdsWork {
    /// Extents refer to their source and their GPU by index. Once cuFile refuses a read, each
    /// thread allocates a bounce buffer of `bounce_bytes`.
    pub fn new(
        extents: Arc<[Extent]>,
        sources: Vec<Arc<dyn Source>>,
        gpus: Vec<GdsGpu>,
        bounce_bytes: usize,
    ) -> Self {
        let extents_of = |source: usize| extents.iter().filter(|e| e.shard() == source).count();
        let file = |source| SourceFile {
            open: Mutex::default(),
            extents_left: AtomicUsize::new(extents_of(source)),
        };
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

    /// Works until no extent is left or the load is stopped.
    pub(super) fn run(&self, shared: &Shared, engine: usize) {
        let mut bounce = Vec::new();
        shared.load_extents(&self.extents, &self.next_extent, |extent| {
            self.load(shared, engine, extent, &mut bounce)
        });
    }

    /// Loads an extent into GPU memory. Returns the tensors that are complete with it.
    fn load(
        &self,
        shared: &Shared,
        engine: usize,
        extent: &Extent,
        bounce: &mut Vec<u8>,
    ) -> Result<Vec<LoadedTensors>> {
        let gpu = &self.gpus[extent.destination()];
        if extent.len_bytes() == 0 {
            return Ok(vec![LoadedTensors::empty(extent.positions(), gpu.device())]);
        }
        let source = &*self.sources[extent.shard()];
        let open = self.open(shared, extent.shard())?;
        // If cuFile refuses during this extent, the span is inexact; the downgrade is still reported.
        let via = match self.refused.load(Ordering::Relaxed) {
            true => Via::Buffered,
            false => Via::Gds,
        };
        let _span = shared.trace_span(engine, extent, via);
        let ready = gpu.load_extent(extent, |target| {
            let read = match &open.registered {
                Some(file) if !self.refused.load(Ordering::Relaxed) => {
                    self.read(shared, source, file, target)?
                }
                _ => 0,
            };
            self.read_buffered(shared, source, target, read, bounce)
        })?;
        source.check_unchanged()?;
        drop(open);
        self.extent_loaded(extent.shard());
        Ok(ready)
    }

    /// Lets cuFile read a part. Returns how many bytes it read, which are fewer than the part has
    /// if cuFile refused.
    fn read(
        &self,
        shared: &Shared,
        source: &dyn Source,
        file: &RegisteredFile,
        target: &GdsTarget<'_>,
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
                Err(refusal) if refusal.is_transient() && retries < RETRIES_MAX => {
                    retries += 1;
                    shared.stats.counters.retry("interrupted");
                }
                Err(refusal) => {
                    self.downgrade(shared, format!("{}: {refusal}", source.location()));
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }

    /// Reads all but the first `done` bytes of a part through the page cache.
    fn read_buffered(
        &self,
        shared: &Shared,
        source: &dyn Source,
        target: &GdsTarget<'_>,
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
            let (offset, cancellation) = (target.offset_bytes() + done, &shared.job.cancellation);
            source.read_exact_at(bytes, offset, cancellation).map_err(|failure| {
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

    /// The source's file. The first thread that needs it opens and registers it.
    fn open(&self, shared: &Shared, source: usize) -> Result<Arc<OpenFile>> {
        let mut open = self.files[source].open.lock();
        if let Some(open) = &*open {
            return Ok(Arc::clone(open));
        }
        let file = self.sources[source].direct_file()?;
        let registered = RegisteredFile::new(Arc::clone(file.descriptor())).map_err(|why| {
            self.downgrade(shared, format!("{}: {why}", self.sources[source].location()));
        });
        let opened = Arc::new(OpenFile { registered: registered.ok(), _file: file });
        Ok(Arc::clone(open.insert(opened)))
    }

    /// Counts an extent of the source as loaded. After the last one its file is closed.
    fn extent_loaded(&self, source: usize) {
        let file = &self.files[source];
        if file.extents_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            file.open.lock().take();
        }
    }

    fn downgrade(&self, shared: &Shared, why: String) {
        // Only the first of the threads that were refused at the same time reports it.
        if !self.refused.swap(true, Ordering::Relaxed) {
            shared.stats.downgrade(Downgrade { from: "gds", to: "buffered", why });
        }
    }
}
