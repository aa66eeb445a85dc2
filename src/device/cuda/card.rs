//! The carrier of one card: brings full slots to it while later ones are being read.
//!
//! ```text
//! engines --take--> Intake --> bringing thread --(Landed: slot + event)--> landing thread --> Outlet
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
use crate::device::{Carrier, Outlet};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::Device;
use crate::plan::Extent;
use crate::ring::FullSlot;
use crate::tensor::Ready;
use crate::timeline::Stage;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// One copy engine is kept busy while the other stream's event is being handled.
const DESKS: usize = 2;

/// What a card is to carry.
pub(crate) struct Freight {
    pub ordinal: u32,
    pub extents: Arc<[Extent]>,
    /// The index of the card among the places of the extents.
    pub place: usize,
    /// What extents are of.
    pub origins: Vec<Origin>,
    pub layout: Layout,
    pub ring: Arc<PinnedRing>,
    /// Whether the card sums up what arrives.
    pub verify: bool,
}

/// What a card has to know of a source.
pub(crate) struct Origin {
    pub location: Location,
    /// What its slots are aligned to.
    pub block_bytes: usize,
}

/// A card at work for one load.
pub(crate) struct Card {
    freight: Freight,
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
    /// What the card is to find, and how many sums of the extent came before.
    sums: Vec<u64>,
    sums_before: usize,
}

impl Card {
    pub fn new(freight: Freight) -> Self {
        let extents = freight.extents.iter().filter(|extent| extent.place() == freight.place);
        let needs = Needs::new(&freight.layout, extents, freight.verify);
        Self { freight, needs, intake: Intake::default(), in_hand: AtomicUsize::new(0) }
    }

    /// The kernels and sheets that the load needs.
    fn office(&self, entered: &Entered<'_>, pinned: bool) -> Result<Office> {
        let sheets = (!self.needs.kernels.is_empty())
            .then(|| Pool::new(entered, 2 * DESKS, self.needs.piece_count, pinned));
        Ok(Office {
            kernels: Kernels::load(entered, self.needs.kernels.iter().copied())?,
            sheets: sheets.transpose()?,
            verify: self.freight.verify,
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
        // Dropped after the desks, which wait until the card has done with them.
        let office = self.office(entered, work.pinned)?;
        let desks: Vec<_> =
            (0..DESKS).map(|_| Desk::new(entered, &self.needs)).collect::<Result<_>>()?;
        for desk in desks.iter().cycle() {
            let Some(full) = self.intake.next().filter(|_| !work.outlet.is_stopped()) else {
                break;
            };
            let Full { index, slot, mut sums } = full;
            let extent = &self.freight.extents[index];
            let layout = &self.freight.layout;
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
        let layout = &self.freight.layout;
        let mut arrivals = Arrivals::new(layout);
        for mut part in brought {
            part.landed.landing.wait(&entered)?;
            work.outlet.verified(self.check_sums(&mut part)?);
            let (index, is_last) = (part.index, part.is_last);
            if is_last {
                part.landed.landing.leave();
            }
            drop(part); // the slot is free
            if !is_last {
                continue;
            }
            self.in_hand.fetch_sub(1, Ordering::AcqRel);
            let extent = &self.freight.extents[index];
            crate::metrics::card_bytes(self.device(), extent.len_bytes());
            for positions in arrivals.add(layout, extent) {
                let (storage, starts) = work.holding.hand_out(layout, &positions, self.device());
                work.outlet.deliver(Ready { positions, storage, starts });
            }
        }
        Ok(())
    }

    /// The sums of what the card will sum up of the full slot of extent `index`.
    fn sums(&self, index: usize, slot: &FullSlot) -> Vec<u64> {
        let extent = &self.freight.extents[index];
        let offset = self.slot_offset(extent);
        let ranges = self.freight.layout.summed(extent, Kernel::Crc64.piece_bytes_max());
        let bytes = |at: u64| (at - offset) as usize;
        ranges.map(|(_, r)| crc64_nvme(&slot.bytes()[bytes(r.start)..bytes(r.end)])).collect()
    }

    /// Fails unless the card's sums are those of host memory; gives of how many bytes they are.
    fn check_sums(&self, part: &mut Brought) -> Result<u64> {
        let Brought { landed: Landed { landing, piece_count, sum_count }, .. } = part;
        let Some(sheet) = landing.sheet() else { return Ok(0) };
        let on_card = sheet.results(*piece_count).skip(*piece_count - *sum_count);
        let extent = &self.freight.extents[part.index];
        let ranges = self.freight.layout.summed(extent, Kernel::Crc64.piece_bytes_max());
        let mut right_bytes = 0;
        for ((there, here), (position, range)) in
            on_card.zip(&part.sums).zip(ranges.skip(part.sums_before))
        {
            if there != *here {
                return Err(self.arrived_wrong(position, range));
            }
            right_bytes += range.end - range.start;
        }
        Ok(right_bytes)
    }

    fn arrived_wrong(&self, position: usize, range: Range<u64>) -> Error {
        let source = self.freight.layout.item(position).source as usize;
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{}: bytes {} to {} of {} arrived with another checksum than they had in host \
                 memory; check the card (nvidia-smi -q -d ECC) and load again",
                self.device(),
                range.start,
                range.end,
                self.freight.origins[source].location
            ),
        )
    }

    fn slot_offset(&self, extent: &Extent) -> u64 {
        extent.slot_offset_bytes(self.freight.origins[extent.shard()].block_bytes)
    }
}

/// What both threads of a card at work share.
struct Work<'a> {
    context: &'a Arc<Context>,
    outlet: &'a dyn Outlet,
    holding: Holding,
    /// Whether the ring's memory is registered with CUDA.
    pinned: bool,
}

impl Carrier for Card {
    fn device(&self) -> Device {
        Device::cuda(self.freight.ordinal)
    }

    fn take(&self, index: usize, full: FullSlot) {
        self.in_hand.fetch_add(1, Ordering::AcqRel);
        let mut sums = Vec::new();
        if self.freight.verify {
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

    fn run(&self, outlet: &dyn Outlet) -> Result<()> {
        let began = Instant::now();
        let context = Context::retain(self.freight.ordinal)?;
        let entered = context.enter()?;
        outlet.took("context", self.device(), began);
        room::check(&entered, &self.freight.layout, self.needs.card_bytes(DESKS))?;
        let began = Instant::now();
        let pin = self.freight.ring.pin(&entered);
        outlet.took("pin", self.device(), began);
        if let Err(why) = pin {
            outlet.downgrade("pinned", "pageable", why);
        }
        let work = Work { context: &context, outlet, holding: Holding::new(), pinned: pin.is_ok() };
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
