//! `read_into`: reads byte ranges of locations into memory that the caller owns.
//!
//! Ranges for host memory are read into it directly. Ranges for a GPU pass through the pinned ring, as
//! the tensors of a load do.

use super::loader::Loader;
use super::read_request::{ReadRequest, RequestOrigin, RequestTarget};
use super::report::LoadReport;
use super::rings::{DestinationSpec, Rings};
use super::start::StartedLoad;
use super::summary::Summary;
use super::verify_ranges::RequestedRanges;
use crate::device::cuda::{Addresses, Layout, LayoutItem};
use crate::engine::{
    BorrowedBuffer, BorrowedWork, ChainedWork, Completion, EngineWork, LoadHandle, RingWork,
};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::options::{Device, ReadPath};
use crate::plan::{
    Extent, LoadSizes, ReadOptions, ReadSizes, SlotSizes, Span, TensorSizes, destination_among,
    pieces_of,
};
use crate::ring::PAGE_BYTES;
use crate::source::{Downgrade, Opener, Source};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use tracing::info_span;

/// The maximum number of bytes that wait to be written to the cache. They are copies, as the memory
/// belongs to the caller.
const COPIED_BYTES_MAX: u64 = 64 << 20;

impl Loader {
    /// Reads all `requests` and calls `on_complete` with the index of each as soon as its memory is
    /// filled. [`ControlFlow::Break`] cancels the remaining requests. Returns when no read is in
    /// flight any more.
    ///
    /// With a [`manifest`](Self::manifest), a request has to be for whole tensors or headers of files,
    /// and is completed only if they have the checksums of the manifest.
    ///
    /// The loader's read path and number of engines apply. The memory limit applies to the ring
    /// that bytes for GPUs pass through, but not to reads into host memory, which use no ring.
    ///
    /// # Errors
    /// When a location cannot be opened, a range exceeds its end or an address is not of the GPU
    /// ([`InvalidInput`](crate::ErrorKind::InvalidInput)), or a read fails. The memory of requests
    /// that were not completed then has unspecified contents.
    pub fn read_into(
        &self,
        requests: &mut [ReadRequest<'_>],
        on_complete: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Summary> {
        let report = LoadReport::begin(self, info_span!("read_into"));
        let read = self.read_requests(requests, on_complete, Some(&report));
        read.map_err(|error| report.fail(error))
    }

    /// As [`read_into`](Self::read_into), with the report of the call, if it is to be reported.
    pub(super) fn read_requests(
        &self,
        requests: &mut [ReadRequest<'_>],
        mut on_complete: impl FnMut(usize) -> ControlFlow<()>,
        report: Option<&LoadReport>,
    ) -> Result<Summary> {
        self.check_not_verifying()?;
        let began = Instant::now();
        let entered = report.map(|report| report.span().enter());
        let opened = info_span!("open")
            .in_scope(|| OpenedRequests::new(&self.opener.renewed(), requests))?;
        let mut started = self.start_requests(requests, &opened, report)?;
        drop(entered);
        let (mut bytes, mut is_complete) = (0, true);
        'all: while let Some(completion) = started.handle.pop() {
            let completed = match completion? {
                Completion::Request { index } => vec![opened.host[index]],
                Completion::Tensors(ready) => opened.gpus[ready.positions].to_vec(),
            };
            for index in completed {
                let len_bytes = requests[index].len_bytes();
                bytes += len_bytes;
                report.into_iter().for_each(|report| report.deliver(1, len_bytes));
                if on_complete(index).is_break() {
                    is_complete = false;
                    break 'all;
                }
            }
        }
        started.handle.stop();
        if is_complete {
            started.handle.check_passed()?;
            report.into_iter().for_each(LoadReport::succeed);
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(Summary { bytes, seconds, ..Summary::of(&started.handle) })
    }

    #[allow(unsafe_code)]
    fn start_requests(
        &self,
        requests: &mut [ReadRequest<'_>],
        opened: &OpenedRequests,
        report: Option<&LoadReport>,
    ) -> Result<StartedLoad> {
        let sources = &opened.sources;
        let total_bytes = requests.iter().map(ReadRequest::len_bytes).sum();
        let gpu = opened.gpu_requests(self, requests)?;
        let memory_bytes = match gpu.devices.is_empty() {
            true => total_bytes,
            false => gpu.sizes.gpu_ring_bytes,
        };
        let options = ReadOptions { to_gpus: !gpu.devices.is_empty(), ..self.read_options()? };
        let reads = ReadSizes::new(options, memory_bytes, total_bytes, sources);
        let mut job = self.job(sources.clone(), reads, &gpu.devices);
        if let Some(report) = report {
            job.arrivals = Some(report.expect(total_bytes, requests.len(), total_bytes, sources));
            job.span = report.span_of_reads();
        }
        job.checks = Arc::new(self.checks_of_ranges(sources, &opened.ranges(requests))?);
        if job.read_path == ReadPath::Mapped {
            job.read_path = ReadPath::Buffered; // the caller's memory cannot be a mapping
        }
        let rings = match gpu.devices.is_empty() {
            true => Rings::default(),
            false => Rings::new(self, &gpu.devices, &gpu.sizes, job.affinity.as_deref(), None)?,
        };
        let destinations = rings.destinations(&DestinationSpec {
            devices: &gpu.devices,
            extents: &gpu.extents,
            sources,
            layout: &|index| gpu.layout(index, sources.len()),
            verify: false,
            system_root: &self.options.system_root,
        })?;
        job.use_rings(rings.all(), &destinations);
        let buffers = opened.host.iter().map(|&index| opened.borrow(index, &mut requests[index]));
        let (buffers, chunks) = (buffers.flatten().collect(), reads.chunks);
        // SAFETY: the requests are borrowed exclusively by `read_into`, which does not touch their
        // memory before `LoadHandle` is dropped; `LoadHandle` is a local there, and its drop joins the
        // engines (also when the callback panics).
        let host = unsafe { BorrowedWork::new(buffers, sources.clone(), chunks) };
        let extents = Arc::clone(&gpu.extents);
        let gpus = RingWork::new(extents, sources.clone(), destinations, chunks, None)
            .of_engines(job.engines)
            .with_part_lists_from(opened.host.len());
        let work = EngineWork::Reads(Arc::new(ChainedWork(host, gpus)));
        let handle = LoadHandle::start(job, work)?;
        handle.stats().counters.hold_at_most(COPIED_BYTES_MAX);
        if self.options.read_path == ReadPath::Gds {
            let why = "ranges into the caller's memory are read by engines".to_owned();
            handle.stats().downgrade(Downgrade { from: "gds", to: "ring", why });
        }
        Ok(StartedLoad::new(handle, 0, rings.gpus))
    }
}

/// Requests with their open sources, grouped by the kind of memory that they are for.
#[derive(Default)]
struct OpenedRequests {
    sources: Vec<Arc<dyn Source>>,
    /// The index of each request's source.
    source_of: Vec<usize>,
    /// The requests for host memory.
    host: Vec<usize>,
    /// The requests for GPU memory.
    gpus: Vec<usize>,
}

/// The requests for GPU memory, as extents and layouts.
struct GpuRequests {
    devices: Vec<Device>,
    items: Vec<LayoutItem>,
    addresses: Arc<[u64]>,
    extents: Arc<[Extent]>,
    sizes: LoadSizes,
}

impl OpenedRequests {
    /// Opens the requests' locations, each once, and checks the ranges.
    fn new(opener: &Opener, requests: &[ReadRequest<'_>]) -> Result<Self> {
        let mut known: HashMap<&Location, usize> = HashMap::new();
        let mut opened = Self::default();
        for (index, request) in requests.iter().enumerate() {
            let source = match &request.from {
                RequestOrigin::Location(location) => match known.get(location) {
                    Some(&source) => source,
                    None => {
                        known.insert(location, opened.sources.len());
                        opened.add(opener.open(location)?)
                    }
                },
                RequestOrigin::Source(source) => match opened.sources.last() {
                    // Requests of one source usually follow each other.
                    Some(last) if Arc::ptr_eq(last, source) => opened.sources.len() - 1,
                    _ => opened.add(Arc::clone(source)),
                },
            };
            check_range(request, &*opened.sources[source])?;
            opened.source_of.push(source);
            match request.into {
                RequestTarget::Host(_) => opened.host.push(index),
                RequestTarget::Gpu { .. } => opened.gpus.push(index),
            }
        }
        Ok(opened)
    }

    /// Adds a source. Returns its index.
    fn add(&mut self, source: Arc<dyn Source>) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// The ranges of the requests: of each one for host memory, and of all for GPU memory.
    fn ranges(&self, requests: &[ReadRequest<'_>]) -> RequestedRanges {
        let range = |&index: &usize| {
            let start = requests[index].offset_bytes;
            (self.source_of[index], start..start + requests[index].len_bytes())
        };
        RequestedRanges {
            host: self.host.iter().map(range).collect(),
            gpus: self.gpus.iter().map(range).collect(),
        }
    }

    /// Borrows the memory of a request for host memory.
    fn borrow(&self, index: usize, request: &mut ReadRequest<'_>) -> Option<BorrowedBuffer> {
        let RequestTarget::Host(into) = &mut request.into else { return None };
        Some(BorrowedBuffer {
            source: self.source_of[index],
            offset: request.offset_bytes,
            into: into.bytes(),
        })
    }

    fn gpu_requests(&self, loader: &Loader, requests: &[ReadRequest<'_>]) -> Result<GpuRequests> {
        let mut devices = Vec::new();
        let (mut items, mut addresses, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for &index in &self.gpus {
            let request = &requests[index];
            let RequestTarget::Gpu { ordinal, address, len_bytes } = request.into else { continue };
            let destination = destination_among(&mut devices, Device::cuda(ordinal))?;
            let (shard, offset_bytes) = (self.source_of[index], request.offset_bytes);
            items.push(LayoutItem { source: shard as u32, offset_bytes, len_bytes, cast: None });
            addresses.push(address);
            spans.push((Span { shard, offset_bytes, len_bytes, element_bytes: 1 }, destination));
        }
        let blocks = self.sources.iter().map(|source| source.block_bytes());
        let block = blocks.fold(PAGE_BYTES, usize::max);
        let device_bytes = items.iter().map(|item| item.len_bytes).sum();
        let is_remote = self.sources.iter().any(|source| source.is_remote());
        let block_bytes = block as u64;
        let needed = TensorSizes { device_bytes, block_bytes, is_remote, ..TensorSizes::default() };
        let sizes = LoadSizes::new(loader.resolved_memory_limit()?, needed)?;
        let extents = pieces_of(spans, sizes.piece_bytes);
        let total_bytes = extents.iter().map(|extent| extent.slot_len_bytes(block)).sum();
        let slots = SlotSizes { total_bytes, ..SlotSizes::default() };
        let sizes = sizes.with_slots(SlotSizes::default(), slots);
        let (addresses, extents) = (addresses.into(), extents.into());
        Ok(GpuRequests { devices, items, addresses, extents, sizes })
    }
}

impl GpuRequests {
    fn layout(&self, index: usize, source_count: usize) -> Layout {
        let destination = Addresses::Given(Arc::clone(&self.addresses));
        Layout::new(self.items.clone(), &self.extents, index, source_count, destination)
    }
}

fn check_range(request: &ReadRequest<'_>, source: &dyn Source) -> Result<()> {
    let len = request.len_bytes();
    let end = request.offset_bytes.checked_add(len);
    if end.is_some_and(|end| end <= source.len_bytes()) {
        return Ok(());
    }
    Err(Error::invalid_input(format!(
        "cannot read {len} bytes from offset {} of {}: it has {} bytes",
        request.offset_bytes,
        source.location(),
        source.len_bytes()
    )))
}
