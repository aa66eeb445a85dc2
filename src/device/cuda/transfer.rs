//! The device transfer of one GPU: brings full slots to it while later ones are being read.
//!
//! ```text
//! engines --take--> Intake --> bringing thread --(Landed: slot + event)--> landing thread --> CompletionSink
//!                              context, pin,                               waits for the event,
//!                              copies on two streams                       slot back to the ring
//! ```
//!
//! The context is made on the bringing thread while the engines already fill the first slots; then
//! the ring is pinned. Memory is checked before anything is copied: too little is an error that
//! names both figures.

use super::arrivals::Arrivals;
use super::context::{Context, Entered};
use super::desk::{Desk, Landed, Needs, Office};
use super::holding::Holding;
use super::intake::{Full, Intake};
use super::kernels::{Kernel, Kernels};
use super::layout::Layout;
use super::memory::PinnedRing;
use super::room;
use super::sheet::Pool;
use crate::checksum::crc64_nvme;
use crate::device::{CompletionSink, DeviceTransfer};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::Device;
use crate::plan::Extent;
use crate::ring::FullSlot;
use crate::tensor::LoadedTensors;
use crate::timeline::Stage;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// One copy engine is kept busy while the other stream's event is being handled.
const DESKS: usize = 2;

/// What a GPU is to carry.
pub(crate) struct TransferSpec {
    pub ordinal: u32,
    pub extents: Arc<[Extent]>,
    /// The index of the GPU among the places of the extents.
    pub place: usize,
    /// What extents are of.
    pub origins: Vec<Origin>,
    pub layout: Layout,
    pub ring: Arc<PinnedRing>,
    /// Whether the GPU sums up what arrives.
    pub verify: bool,
}

/// What a GPU has to know of a source.
pub(crate) struct Origin {
    pub location: Location,
    /// What its slots are aligned to.
    pub block_bytes: usize,
}

/// A GPU at work for one load.
pub(crate) struct CudaTransfer {
    spec: TransferSpec,
    needs: Needs,
    intake: Intake,
    in_hand: AtomicUsize,
}

/// What the bringing thread hands on: a part of the work for an extent.
struct Brought {
    landed: Landed,
    /// The extent.
    index: usize,
    /// Whether this completes it.
    is_last: bool,
    /// What the GPU is to find, and how many sums of the extent came before.
    sums: Vec<u64>,
    sums_before: usize,
}

impl CudaTransfer {
    pub fn new(spec: TransferSpec) -> Self {
        let extents = spec.extents.iter().filter(|extent| extent.destination() == spec.place);
        let needs = Needs::new(&spec.layout, extents, spec.verify);
        Self { spec, needs, intake: Intake::default(), in_hand: AtomicUsize::new(0) }
    }

    /// The kernels and sheets that the load needs.
    fn office(&self, entered: &Entered<'_>, pinned: bool) -> Result<Office> {
        let sheets = (!self.needs.kernels.is_empty())
            .then(|| Pool::new(entered, 2 * DESKS, self.needs.piece_count, pinned));
        Ok(Office {
            kernels: Kernels::load(entered, self.needs.kernels.iter().copied())?,
            sheets: sheets.transpose()?,
            verify: self.spec.verify,
            pinned,
        })
    }

    /// Brings slots into place as they come.
    fn bring_all(
        &self,
        work: &Work<'_>,
        entered: &Entered<'_>,
        brought: &Sender<Brought>,
    ) -> Result<()> {
        // Dropped after the desks, which wait until the GPU has done with them.
        let office = self.office(entered, work.pinned)?;
        let desks: Vec<_> =
            (0..DESKS).map(|_| Desk::new(entered, &self.needs)).collect::<Result<_>>()?;
        for desk in desks.iter().cycle() {
            let Some(full) = self.intake.next().filter(|_| !work.sink.is_stopped()) else {
                break;
            };
            let Full { index, slot, mut sums } = full;
            let extent = &self.spec.extents[index];
            let layout = &self.spec.layout;
            let addresses = work.holding.addresses(entered, layout, extent)?;
            let first = extent.positions().start;
            let base = |position: usize| addresses[position - first];
            let slot = (slot, self.slot_offset(extent));
            let all = desk.bring(entered, &office, layout, extent, slot, base)?;
            let (last, mut sums_before) = (all.len() - 1, 0);
            for (number, landed) in all.into_iter().enumerate() {
                let rest = sums.split_off(landed.sum_count);
                let sums = std::mem::replace(&mut sums, rest);
                let sum_count = sums.len();
                let is_last = number == last;
                if brought.send(Brought { landed, index, is_last, sums, sums_before }).is_err() {
                    return Ok(()); // the landing thread failed, and says why
                }
                sums_before += sum_count;
            }
        }
        Ok(())
    }

    /// Hands out tensors as their last bytes arrive.
    fn land_all(&self, work: &Work<'_>, brought: Receiver<Brought>) -> Result<()> {
        let entered = work.context.enter()?;
        let layout = &self.spec.layout;
        let mut arrivals = Arrivals::new(layout);
        for mut part in brought {
            part.landed.landing.wait(&entered)?;
            work.sink.verified(self.check_sums(&mut part)?);
            let (index, is_last) = (part.index, part.is_last);
            if is_last {
                part.landed.landing.leave();
            }
            drop(part); // the slot is free
            if !is_last {
                continue;
            }
            self.in_hand.fetch_sub(1, Ordering::AcqRel);
            let extent = &self.spec.extents[index];
            crate::metrics::device_bytes(self.device().to_string(), extent.len_bytes());
            for positions in arrivals.add(layout, extent) {
                let (storage, starts) = work.holding.hand_out(layout, &positions, self.device());
                work.sink.deliver(LoadedTensors { positions, storage, starts });
            }
        }
        Ok(())
    }

    /// The sums of what the GPU will sum up of the full slot of extent `index`.
    fn sums(&self, index: usize, slot: &FullSlot) -> Vec<u64> {
        let extent = &self.spec.extents[index];
        let offset = self.slot_offset(extent);
        let ranges = self.spec.layout.summed(extent, Kernel::Crc64.piece_bytes_max());
        let bytes = |at: u64| (at - offset) as usize;
        ranges.map(|(_, r)| crc64_nvme(slot.bytes(bytes(r.start)..bytes(r.end)))).collect()
    }

    /// Fails unless the GPU's sums are those of host memory; gives of how many bytes they are.
    fn check_sums(&self, part: &mut Brought) -> Result<u64> {
        let Brought { landed: Landed { landing, piece_count, sum_count }, .. } = part;
        let Some(sheet) = landing.sheet() else { return Ok(0) };
        let on_device = sheet.results(*piece_count).skip(*piece_count - *sum_count);
        let extent = &self.spec.extents[part.index];
        let ranges = self.spec.layout.summed(extent, Kernel::Crc64.piece_bytes_max());
        let mut right_bytes = 0;
        for ((there, here), (position, range)) in
            on_device.zip(&part.sums).zip(ranges.skip(part.sums_before))
        {
            if there != *here {
                return Err(self.arrived_wrong(position, range));
            }
            right_bytes += range.end - range.start;
        }
        Ok(right_bytes)
    }

    fn arrived_wrong(&self, position: usize, range: Range<u64>) -> Error {
        let source = self.spec.layout.item(position).source as usize;
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{}: bytes {} to {} of {} arrived with another checksum than they had in host \
                 memory; check the GPU (nvidia-smi -q -d ECC) and load again",
                self.device(),
                range.start,
                range.end,
                self.spec.origins[source].location
            ),
        )
    }

    fn slot_offset(&self, extent: &Extent) -> u64 {
        extent.slot_offset_bytes(self.spec.origins[extent.shard()].block_bytes)
    }
}

/// What both threads of a GPU at work share.
struct Work<'a> {
    context: &'a Arc<Context>,
    sink: &'a dyn CompletionSink,
    holding: Holding,
    /// Whether the ring's memory is registered with CUDA.
    pinned: bool,
}

impl DeviceTransfer for CudaTransfer {
    fn device(&self) -> Device {
        Device::cuda(self.spec.ordinal)
    }

    fn take(&self, index: usize, full: FullSlot) {
        self.in_hand.fetch_add(1, Ordering::AcqRel);
        let mut sums = Vec::new();
        if self.spec.verify {
            full.enter(Stage::Checking);
            sums = self.sums(index, &full);
        }
        full.enter(Stage::Copying);
        self.intake.push(Full { index, slot: full, sums });
    }

    fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.intake.close();
    }

    fn run(&self, sink: &dyn CompletionSink) -> Result<()> {
        let began = Instant::now();
        let context = Context::retain(self.spec.ordinal)?;
        let entered = context.enter()?;
        sink.took("context", self.device(), began);
        room::check(&entered, &self.spec.layout, self.needs.device_bytes(DESKS))?;
        let began = Instant::now();
        let pin = self.spec.ring.pin(&entered);
        sink.took("pin", self.device(), began);
        if let Err(why) = pin {
            sink.downgrade("pinned", "pageable", why);
        }
        let work = Work { context: &context, sink, holding: Holding::new(), pinned: pin.is_ok() };
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let work = &work;
            // The receiver goes with it: what is left in there when it fails is waited for and
            // dropped, and the bringing thread stops at its next slot.
            let landing = scope.spawn(move || self.land_all(work, receiver));
            let bringing = self.bring_all(work, &entered, &sender);
            drop(sender); // the landing thread ends when it has seen to the rest
            let landing = landing.join().unwrap_or_else(|panic| resume_unwind(panic));
            bringing.and(landing)
        })
    }
}
