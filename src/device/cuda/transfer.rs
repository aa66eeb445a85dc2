//! The device transfer of one GPU, which copies full slots while engines read later ones.
//!
//! ```text
//! engines --submit--> queue --> copy thread --(slot + event)--> completion thread --> CompletionSink
//!                               context, pin,                   waits for the event,
//!                               copies on two streams           frees the slot
//! ```
//!
//! The copy thread creates the context while the engines already fill the first slots, and then pins
//! the ring. Before the first copy it checks that the GPU has enough memory.

use super::allocations::{Allocations, check_memory};
use super::completion_tracker::CompletionTracker;
use super::context::{Context, Entered};
use super::copy_stream::{CopyStream, TransferContext, TransferRequirements};
use super::in_flight_copy::InFlightCopy;
use super::kernels::{Kernel, Kernels};
use super::launch_arguments::ArgumentPool;
use super::layout::Layout;
use super::memory::PinnedRing;
use crate::checksum::crc64_nvme;
use crate::device::transfer::{CompletionSink, DeviceTransfer};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::Device;
use crate::plan::Extent;
use crate::ring::FullSlot;
use crate::sync::Mutex;
use crate::sys::spawn_scoped;
use crate::timeline::Stage;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// Copies of 4 MiB keep the GPU busy on eight streams, as many as have a queue of their own on the GPU,
/// while the events of some of them are handled.
const STREAMS: usize = 8;

/// The slots that go to one GPU, and their destinations in its memory.
pub(crate) struct TransferSpec {
    pub ordinal: u32,
    pub extents: Arc<[Extent]>,
    /// The index of the GPU among the destinations of the plan.
    pub destination: usize,
    /// The sources of the extents.
    pub sources: Vec<ExtentSource>,
    pub layout: Layout,
    pub ring: Arc<PinnedRing>,
    /// Whether the GPU computes checksums of the bytes it received.
    pub verify: bool,
    /// The directory that holds the kernel's /proc and /sys.
    pub system_root: PathBuf,
}

/// The properties of a source that its extents depend on.
pub(crate) struct ExtentSource {
    pub location: Location,
    /// The alignment of the source's slots.
    pub block_bytes: usize,
}

/// The transfer of one load's slots to a CUDA GPU.
pub(crate) struct CudaTransfer {
    spec: TransferSpec,
    required: TransferRequirements,
    /// Full slots in the order of their arrival; `None` after the last one.
    submit: Sender<Option<SubmittedSlot>>,
    submitted: Mutex<Receiver<Option<SubmittedSlot>>>,
    in_flight: AtomicUsize,
}

struct SubmittedSlot {
    /// The index of the slot's extent.
    index: usize,
    slot: FullSlot,
    /// The checksums of the slot's parts, if the GPU computes them too.
    checksums: Vec<u64>,
}

/// A part of the work for an extent, on its way from the copy thread to the completion thread.
struct QueuedCopy {
    copy: InFlightCopy,
    /// The index of the extent.
    index: usize,
    /// Whether this is the last part of the extent.
    is_last: bool,
    /// The checksums that the GPU should compute in this part.
    checksums: Vec<u64>,
    /// The number of the extent's checksums in earlier parts.
    checksums_before: usize,
}

impl CudaTransfer {
    pub fn new(spec: TransferSpec) -> Self {
        let extents = spec.extents.iter().filter(|extent| extent.destination() == spec.destination);
        let required = TransferRequirements::new(&spec.layout, extents, spec.verify);
        let (submit, submitted) = channel();
        let (submitted, in_flight) = (Mutex::new(submitted), AtomicUsize::new(0));
        Self { spec, required, submit, submitted, in_flight }
    }

    /// Loads the kernels and allocates the launch arguments that the load needs.
    fn context(&self, entered: &Entered<'_>, pinned: bool) -> Result<TransferContext> {
        let arguments = (!self.required.kernels.is_empty())
            .then(|| ArgumentPool::new(entered, 2 * STREAMS, self.required.piece_count, pinned));
        Ok(TransferContext {
            kernels: Kernels::load(entered, self.required.kernels.iter().copied())?,
            arguments: arguments.transpose()?,
            verify: self.spec.verify,
        })
    }

    /// Queues the copies of submitted slots until the last slot.
    fn copy_slots(
        &self,
        run: &TransferRun<'_>,
        entered: &Entered<'_>,
        queued: &Sender<QueuedCopy>,
    ) -> Result<()> {
        // Dropped after the streams, which wait until the GPU has finished.
        let context = self.context(entered, run.pinned)?;
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| CopyStream::new(entered, &self.required, run.pinned))
            .collect::<Result<_>>()?;
        let submitted = self.submitted.lock();
        for stream in streams.iter().cycle() {
            let Ok(Some(next)) = submitted.recv() else { break };
            if run.sink.is_cancelled() {
                break;
            }
            let SubmittedSlot { index, slot, mut checksums } = next;
            let extent = &self.spec.extents[index];
            let layout = &self.spec.layout;
            let addresses = run.allocations.addresses(entered, layout, extent)?;
            let first = extent.positions().start;
            let base = |position: usize| addresses[position - first];
            let slot = (slot, self.slot_offset(extent));
            let copies = stream.queue(entered, &context, layout, extent, slot, base)?;
            let (last, mut checksums_before) = (copies.len() - 1, 0);
            for (number, mut copy) in copies.into_iter().enumerate() {
                let count = copy.arguments().map_or(0, |arguments| arguments.checksum_count);
                let rest = checksums.split_off(count);
                let checksums = std::mem::replace(&mut checksums, rest);
                let is_last = number == last;
                let part = QueuedCopy { copy, index, is_last, checksums, checksums_before };
                if queued.send(part).is_err() {
                    return Ok(()); // the completion thread failed and returns the error
                }
                checksums_before += count;
            }
        }
        Ok(())
    }

    /// Waits for the queued copies in order and delivers tensors when they are complete.
    fn complete_copies(&self, run: &TransferRun<'_>, queued: Receiver<QueuedCopy>) -> Result<()> {
        let entered = run.context.enter()?;
        let layout = &self.spec.layout;
        let mut tracker = CompletionTracker::new(layout);
        for mut part in queued {
            part.copy.wait(&entered)?;
            run.sink.add_verified(self.check_sums(&mut part)?);
            let (index, is_last) = (part.index, part.is_last);
            if is_last {
                part.copy.leave_slot();
            }
            drop(part); // frees the slot
            if is_last {
                self.in_flight.fetch_sub(1, Ordering::AcqRel);
                let extent = &self.spec.extents[index];
                tracker
                    .complete(layout, &run.allocations, extent, self.device())
                    .for_each(|tensors| run.sink.deliver(tensors));
            }
        }
        Ok(())
    }

    /// The checksums of the ranges of extent `index` that the GPU will check, computed from its slot.
    fn checksums(&self, index: usize, slot: &FullSlot) -> Vec<u64> {
        let extent = &self.spec.extents[index];
        let offset = self.slot_offset(extent);
        let bytes = |at: u64| (at - offset) as usize;
        self.checksummed(extent)
            .map(|(_, r)| crc64_nvme(slot.bytes(bytes(r.start)..bytes(r.end))))
            .collect()
    }

    fn checksummed(&self, extent: &Extent) -> impl Iterator<Item = (usize, Range<u64>)> {
        self.spec.layout.checksummed(extent, Kernel::Crc64.piece_bytes_max())
    }

    /// Fails unless the GPU's checksums equal those of host memory. Returns the number of verified
    /// bytes.
    fn check_sums(&self, part: &mut QueuedCopy) -> Result<u64> {
        let Some(arguments) = part.copy.arguments() else { return Ok(0) };
        let ranges = self.checksummed(&self.spec.extents[part.index]).skip(part.checksums_before);
        let checksums = arguments.checksums().zip(&part.checksums);
        let mut verified_bytes = 0;
        for ((on_gpu, on_host), (position, range)) in checksums.zip(ranges) {
            if on_gpu != *on_host {
                return Err(self.corrupt(position, range));
            }
            verified_bytes += range.end - range.start;
        }
        Ok(verified_bytes)
    }

    fn corrupt(&self, position: usize, range: Range<u64>) -> Error {
        let source = self.spec.layout.items[position].source as usize;
        let sentence = format!(
            "{}: the checksum of bytes {} to {} of {} on the GPU differs from the one in host \
             memory; check the GPU (nvidia-smi -q -d ECC) and load again",
            self.device(),
            range.start,
            range.end,
            self.spec.sources[source].location
        );
        Error::new(ErrorKind::Corrupt, sentence)
    }

    fn slot_offset(&self, extent: &Extent) -> u64 {
        extent.slot_offset_bytes(self.spec.sources[extent.shard()].block_bytes)
    }
}

/// The state that the two threads of a running transfer share.
struct TransferRun<'a> {
    context: &'a Arc<Context>,
    sink: &'a dyn CompletionSink,
    allocations: Allocations,
    /// Whether the ring's memory is registered with CUDA.
    pinned: bool,
}

impl DeviceTransfer for CudaTransfer {
    fn device(&self) -> Device {
        Device::cuda(self.spec.ordinal)
    }

    fn submit(&self, index: usize, full: FullSlot) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        let mut checksums = Vec::new();
        if self.spec.verify {
            full.enter(Stage::Checking);
            checksums = self.checksums(index, &full);
        }
        full.enter(Stage::Copying);
        // Cannot fail, as `self` holds the receiver.
        let _ = self.submit.send(Some(SubmittedSlot { index, slot: full, checksums }));
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn close(&self) {
        let _ = self.submit.send(None);
    }

    fn run(&self, sink: &dyn CompletionSink) -> Result<()> {
        let began = Instant::now();
        let context = Context::retain(self.spec.ordinal)?;
        let entered = context.enter()?;
        sink.record_step("context", self.device(), began);
        let staging_bytes = STREAMS as u64 * self.required.bytes_per_stream();
        check_memory(&entered, &self.spec.layout, staging_bytes, &self.spec.system_root)?;
        let began = Instant::now();
        let pin = self.spec.ring.pin(&entered);
        sink.record_step("pin", self.device(), began);
        if let Err(why) = pin {
            sink.downgrade("pinned", "pageable", why);
        }
        let allocations = Allocations::default();
        let run = TransferRun { context: &context, sink, allocations, pinned: pin.is_ok() };
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let run = &run;
            // The thread owns the receiver. If the thread fails, the remaining copies are waited for
            // and dropped, and the copy thread stops at its next slot.
            let completing = move || self.complete_copies(run, receiver);
            let completion = spawn_scoped(scope, "ringload-copied", completing)?;
            let copying = self.copy_slots(run, &entered, &sender);
            drop(sender); // the completion thread ends after the remaining copies
            let completion = completion.join().unwrap_or_else(|panic| resume_unwind(panic));
            copying.and(completion)
        })
    }
}
