//! `read_into`: byte ranges of locations straight into memory that the caller owns.
//!
//! Host memory is read into directly. What is to go to a GPU passes through the pinned ring, as a
//! load's tensors do.

use super::rings::{self, LoadSpec, Rings, Sizes};
use super::{Loader, Started, Summary};
use crate::device::cuda::{Addresses, Layout, LayoutItem};
use crate::engine::{
    BorrowedBuffer, BorrowedWork, CancelHandle, ChainedWork, Completion, EngineWork, LoadHandle,
    RingWork,
};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::{Device, ReadPath};
use crate::plan::{Extent, Span, destination_among, pieces_of};
use crate::ring::{Budget, Needs, PAGE_BYTES};
use crate::source::{Downgrade, Opener, Source};
use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

/// What is read into memory that others own is copied for the cache; at most so much at a time.
const COPIED_BYTES_MAX: u64 = 64 << 20;

/// One range of a location, and where its bytes go.
#[derive(Debug)]
pub struct ReadRequest<'a> {
    from: Origin,
    offset_bytes: u64,
    into: Target<'a>,
}

/// What is read.
enum Origin {
    /// To be opened.
    Location(Location),
    /// Open already.
    Source(Arc<dyn Source>),
}

#[derive(Debug)]
enum Target<'a> {
    Host(&'a mut [u8]),
    Gpu { ordinal: u32, address: u64, len_bytes: u64 },
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(location) => write!(f, "{location}"),
            Self::Source(source) => write!(f, "{}", source.location()),
        }
    }
}

impl<'a> ReadRequest<'a> {
    /// Asks for the `into.len()` bytes of `location` from `offset_bytes`.
    ///
    /// Memory whose address is congruent to the offset modulo 4096 can be read into directly; other
    /// memory is filled through the page cache.
    pub fn new(location: impl Into<Location>, offset_bytes: u64, into: &'a mut [u8]) -> Self {
        Self { from: Origin::Location(location.into()), offset_bytes, into: Target::Host(into) }
    }

    /// As [`new`](Self::new), for what is open already: a shard's source.
    pub(crate) fn of(source: &Arc<dyn Source>, offset_bytes: u64, into: &'a mut [u8]) -> Self {
        Self::new(source.location().clone(), offset_bytes, into).open_as(source)
    }

    /// The same of what is open already.
    pub(crate) fn open_as(self, source: &Arc<dyn Source>) -> Self {
        Self { from: Origin::Source(Arc::clone(source)), ..self }
    }

    /// Asks for the `len_bytes` bytes of `location` from `offset_bytes`, into memory of gpu
    /// `ordinal` from `address`. That this is memory of that GPU is checked before it is written to.
    ///
    /// # Safety
    /// From the call of [`read_into`](Loader::read_into) until it returns, the memory stays allocated
    /// and nobody else uses it: also no work that was queued on the GPU before.
    #[allow(unsafe_code)]
    pub unsafe fn on_device(
        location: impl Into<Location>,
        offset_bytes: u64,
        ordinal: u32,
        address: u64,
        len_bytes: u64,
    ) -> Self {
        let into = Target::Gpu { ordinal, address, len_bytes };
        Self { from: Origin::Location(location.into()), offset_bytes, into }
    }

    fn len_bytes(&self) -> u64 {
        match &self.into {
            Target::Host(into) => into.len() as u64,
            Target::Gpu { len_bytes, .. } => *len_bytes,
        }
    }
}

impl Loader {
    /// Reads all `requests`, calling `on_complete` with the index of each as soon as its memory is
    /// filled; [`ControlFlow::Break`] stops the rest. Returns when nothing is in flight any more.
    ///
    /// The loader's read path and engines apply. What goes to host memory has no ring, so the memory
    /// limit does not apply to it; it bounds the ring that bytes for GPUs pass through.
    ///
    /// # Errors
    /// When a location cannot be opened, a range lies beyond its end or an address is not of the gpu
    /// ([`ErrorKind::InvalidInput`]), or a read fails. What the memory of requests that were not
    /// completed holds is then unspecified.
    pub fn read_into(
        &self,
        requests: &mut [ReadRequest<'_>],
        on_complete: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Summary> {
        self.read_into_cancellable(requests, |_| (), on_complete)
    }

    /// As [`read_into`](Self::read_into); calls `on_start` with a handle that cancels the load, before
    /// any request completes.
    ///
    /// # Errors
    /// Those of `read_into`.
    pub(crate) fn read_into_cancellable(
        &self,
        requests: &mut [ReadRequest<'_>],
        on_start: impl FnOnce(CancelHandle),
        mut on_complete: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Summary> {
        self.check_not_verifying()?;
        let began = Instant::now();
        let sorted = Sorted::new(&self.opener.renewed(), requests)?;
        let mut started = self.start_reading_into(requests, &sorted)?;
        on_start(started.running.cancel_handle());
        let mut bytes = 0;
        'all: while let Some(done) = started.running.pop() {
            let completed = match done? {
                Completion::Request { index } => vec![sorted.host[index]],
                Completion::Tensors(ready) => sorted.gpus[ready.positions].to_vec(),
            };
            for index in completed {
                bytes += requests[index].len_bytes();
                if on_complete(index).is_break() {
                    break 'all;
                }
            }
        }
        started.running.stop();
        let seconds = began.elapsed().as_secs_f64();
        Ok(Summary { bytes, seconds, ..Summary::of(&started.running) })
    }

    #[allow(unsafe_code)]
    fn start_reading_into(
        &self,
        requests: &mut [ReadRequest<'_>],
        sorted: &Sorted,
    ) -> Result<Started> {
        let sources = &sorted.sources;
        let total = requests.iter().map(ReadRequest::len_bytes).sum();
        let on_gpus = sorted.on_gpus(self, requests)?;
        let ring_bytes = on_gpus.sizes.gpus.map_or(total, |(least, _)| least);
        let tuning = self.tuning(ring_bytes, total, sources)?;
        let near = self.near(&on_gpus.devices);
        let node = near.as_ref().map(|near| near.node);
        let rings = Rings::new(self, on_gpus.sizes, node)?;
        let spec = LoadSpec {
            devices: &on_gpus.devices,
            extents: &on_gpus.extents,
            sources,
            layout: &|place| on_gpus.layout(place, sources.len()),
            verify: false,
        };
        let (places, transfers) = rings::places(&rings, &spec)?;
        let lent = sorted.host.iter().map(|&index| sorted.lend(index, &mut requests[index]));
        // SAFETY: the requests are borrowed exclusively by `read_into`, which does not touch their
        // memory before `LoadHandle` is dropped; `LoadHandle` is a local there, and its drop joins the
        // engines (also when the callback panics).
        let host = unsafe {
            BorrowedWork::new(lent.flatten().collect(), sources.clone(), tuning.chunk_bytes)
        };
        let gpus = RingWork::new(
            Arc::clone(&on_gpus.extents),
            sources.clone(),
            places,
            tuning.chunk_bytes,
            None,
        );
        let mut job = self.job(sources.clone(), &tuning);
        if job.read_path == ReadPath::Mapped {
            job.read_path = ReadPath::Buffered; // the caller's memory cannot be a mapping
        }
        let job = crate::engine::Job { rings: rings.all(), transfers, affinity: near, ..job };
        let running = LoadHandle::start(job, EngineWork::Reads(Arc::new(ChainedWork(host, gpus))))?;
        running.stats().counters.hold_at_most(COPIED_BYTES_MAX);
        if self.read_path == ReadPath::Gds {
            let why = "ranges into lent memory are read by engines".to_owned();
            running.stats().downgrade(Downgrade { from: "gds", to: "ring", why });
        }
        Ok(Started { running, ring_bytes: 0, _lease: rings.gpus })
    }
}

/// Requests by where they go, and what they read.
struct Sorted {
    sources: Vec<Arc<dyn Source>>,
    /// By request: its source.
    source_of: Vec<usize>,
    /// The requests into host memory.
    host: Vec<usize>,
    /// The requests into memory of GPUs.
    gpus: Vec<usize>,
}

/// What the requests into memory of GPUs come to.
struct OnGpus {
    devices: Vec<Device>,
    items: Vec<LayoutItem>,
    addresses: Arc<[u64]>,
    extents: Arc<[Extent]>,
    sizes: Sizes,
}

impl Sorted {
    /// Opens what the requests read, each location once, and checks their ranges.
    fn new(opener: &Opener, requests: &[ReadRequest<'_>]) -> Result<Self> {
        let mut known: HashMap<&Location, usize> = HashMap::new();
        let mut sorted =
            Self { sources: Vec::new(), source_of: Vec::new(), host: Vec::new(), gpus: Vec::new() };
        for (index, request) in requests.iter().enumerate() {
            let source = match &request.from {
                Origin::Location(location) => match known.get(location) {
                    Some(&source) => source,
                    None => {
                        known.insert(location, sorted.sources.len());
                        sorted.add(opener.open(location)?)
                    }
                },
                Origin::Source(source) => match sorted.sources.last() {
                    // Mostly they come one behind the other.
                    Some(last) if Arc::ptr_eq(last, source) => sorted.sources.len() - 1,
                    _ => sorted.add(Arc::clone(source)),
                },
            };
            check_range(request, &*sorted.sources[source])?;
            sorted.source_of.push(source);
            match request.into {
                Target::Host(_) => sorted.host.push(index),
                Target::Gpu { .. } => sorted.gpus.push(index),
            }
        }
        Ok(sorted)
    }

    /// Adds a source; gives its index.
    fn add(&mut self, source: Arc<dyn Source>) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// The memory of a request into host memory.
    fn lend(&self, index: usize, request: &mut ReadRequest<'_>) -> Option<BorrowedBuffer> {
        let Target::Host(into) = &mut request.into else { return None };
        Some(BorrowedBuffer {
            source: self.source_of[index],
            offset: request.offset_bytes,
            into: NonNull::from(&mut **into),
        })
    }

    fn on_gpus(&self, loader: &Loader, requests: &[ReadRequest<'_>]) -> Result<OnGpus> {
        let mut devices = Vec::new();
        let (mut items, mut addresses, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for &index in &self.gpus {
            let request = &requests[index];
            let Target::Gpu { ordinal, address, len_bytes } = request.into else { continue };
            let place = destination_among(&mut devices, Device::cuda(ordinal))?;
            let (shard, offset_bytes) = (self.source_of[index], request.offset_bytes);
            items.push(LayoutItem { source: shard as u32, offset_bytes, len_bytes, cast: None });
            addresses.push(address);
            spans.push((Span { shard, offset_bytes, len_bytes, element_bytes: 1 }, place));
        }
        let blocks = self.sources.iter().map(|source| source.block_bytes());
        let block = blocks.fold(PAGE_BYTES, usize::max);
        let device_bytes = items.iter().map(|item| item.len_bytes).sum();
        let needs = Needs { device_bytes, block_bytes: block as u64, ..Needs::default() };
        let budget = Budget::new(loader.resolved_memory_limit()?, needs)?;
        let extents = pieces_of(spans, budget.piece_bytes);
        let slots: u64 = extents.iter().map(|extent| extent.slot_len_bytes(block)).sum();
        let most = budget.gpu_ring_bytes;
        let gpus = (!devices.is_empty()).then_some((slots.min(most), most));
        let sizes = Sizes { host: None, gpus, block };
        Ok(OnGpus { devices, items, addresses: addresses.into(), extents: extents.into(), sizes })
    }
}

impl OnGpus {
    fn layout(&self, place: usize, source_count: usize) -> Layout {
        let destination = Addresses::Given(Arc::clone(&self.addresses));
        Layout::new(self.items.clone(), &self.extents, place, source_count, destination)
    }
}

fn check_range(request: &ReadRequest<'_>, source: &dyn Source) -> Result<()> {
    let len = request.len_bytes();
    let end = request.offset_bytes.checked_add(len);
    if end.is_some_and(|end| end <= source.len_bytes()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "cannot read {len} bytes from offset {} of {}: it has {} bytes",
            request.offset_bytes,
            source.location(),
            source.len_bytes()
        ),
    ))
}
