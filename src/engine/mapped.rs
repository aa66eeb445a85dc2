//! The mapped read path: extents are faulted in from the page cache, and tensors are views of the
//! mapped pages.
//!
//! The mappings are read-only, or private ones that may be written to (`Loader::immutable`).
//!
//! This path has no ring and no read operation. Each thread takes an extent and asks the kernel to
//! map its pages, and to read those that are not cached, in steps, so that a load can be stopped
//! quickly. A file that shrank is reported as EFAULT by madvise(2), not as a signal.

use super::shared::Shared;
use crate::error::{Error, Result};
use crate::options::Device;
use crate::plan::{Extent, Plan};
use crate::ring::Mapping;
use crate::source::{Source, Via, stopped};
use crate::tensor::{LoadedTensors, Offsets, Storage};
use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// How many bytes one call of madvise(2) faults in.
const STEP_BYTES: usize = 8 << 20;

pub(crate) struct MappedWork {
    plan: Arc<Plan>,
    mappings: Vec<OnceLock<Arc<Mapping>>>,
    /// Whether the mappings may be written to.
    is_private: bool,
    next_extent: AtomicUsize,
}

impl MappedWork {
    pub fn new(plan: Arc<Plan>) -> Self {
        let mappings = plan.checkpoint().shards().iter().map(|_| OnceLock::new()).collect();
        let next_extent = AtomicUsize::new(0);
        Self { plan, mappings, is_private: false, next_extent }
    }

    /// As [`new`](Self::new), with `mappings` of the shards that may be written to.
    pub fn private(plan: Arc<Plan>, mappings: Vec<Arc<Mapping>>) -> Self {
        let mappings = mappings.into_iter().map(OnceLock::from).collect();
        let next_extent = AtomicUsize::new(0);
        Self { plan, mappings, is_private: true, next_extent }
    }

    /// Works until no extent is left or the load is stopped.
    pub(super) fn run(&self, shared: &Shared, engine: usize) {
        shared.load_extents(self.plan.extents(), &self.next_extent, |extent| {
            self.fault_in(shared, engine, extent).map(Some)
        });
    }

    fn fault_in(&self, shared: &Shared, engine: usize, extent: &Extent) -> Result<LoadedTensors> {
        let positions = extent.positions();
        if extent.len_bytes() == 0 {
            return Ok(LoadedTensors::empty(positions, Device::Host));
        }
        let source = &**self.plan.checkpoint().shards()[extent.shard()].source();
        let mapping = self.mapping(source, extent.shard())?;
        let start = extent.slot_offset_bytes(source.block_bytes()) as usize;
        let end = extent.end_bytes() as usize;
        let _span = shared.trace_span(engine, extent, Via::Mapped);
        for from in (start..end).step_by(STEP_BYTES) {
            if shared.is_cancelled() {
                return Err(stopped());
            }
            let step = from..(from + STEP_BYTES).min(end);
            populate(shared, source, &mapping, step)?;
        }
        source.check_unchanged()?;
        let storage = match self.is_private {
            true => Storage::private(mapping, start..end),
            false => Storage::mapped(mapping, start..end),
        };
        Ok(LoadedTensors { positions, storage, starts: Offsets::Shard(start as u64) })
    }

    fn mapping(&self, source: &dyn Source, shard: usize) -> Result<Arc<Mapping>> {
        if let Some(mapping) = self.mappings[shard].get() {
            return Ok(Arc::clone(mapping));
        }
        // Two threads may both map the file. One mapping is kept and the other is unmapped.
        let mapping = Arc::new(source.map()?);
        Ok(Arc::clone(self.mappings[shard].get_or_init(|| mapping)))
    }
}

fn populate(
    shared: &Shared,
    source: &dyn Source,
    mapping: &Mapping,
    range: Range<usize>,
) -> Result<()> {
    let began = Instant::now();
    let bytes = range.len() as u64;
    match mapping.populate_read(range) {
        // Before Linux 5.14 pages are faulted in when they are touched.
        Err(e) if e.raw_os_error() != Some(libc::EINVAL) => return Err(failed(source, e)),
        _ => {}
    }
    shared.stats.read(Via::Mapped, bytes);
    crate::metrics::read(source.kind(), Via::Mapped.as_str(), bytes, began.elapsed());
    Ok(())
}

fn failed(source: &dyn Source, failure: io::Error) -> Error {
    let failed = Error::from_io(format_args!("read {} as mapped", source.location()), failure);
    source.check_unchanged().err().unwrap_or(failed)
}
