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

use super::context::{Context, Entered};
use super::desk::{Desk, Landed, Needs, Office};
use super::holding::Holding;
use super::intake::Intake;
use super::kernels::Kernels;
use super::layout::Layout;
use super::memory::{PinnedRing, check_is_of_card};
use super::sheet::Pool;
use crate::checksum::crc64_nvme;
use crate::device::{Carrier, Outlet};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Device;
use crate::plan::Extent;
use crate::ring::FullSlot;
use crate::tensor::Ready;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// One copy engine is kept busy while the other stream's event is being handled.
const DESKS: usize = 2;

/// What a card is to carry.
pub(crate) struct Freight {
    pub ordinal: u32,
    pub extents: Arc<[Extent]>,
    /// The index of the card among the places of the extents.
    pub place: usize,
    /// By source: what its slots are aligned to.
    pub block_bytes: Vec<usize>,
    pub layout: Layout,
    pub ring: Arc<PinnedRing>,
    /// Whether the card sums up what arrives.
    pub verify: bool,
}

/// A card at work for one load.
pub(crate) struct Card {
    freight: Freight,
    needs: Needs,
    intake: Intake,
    in_hand: AtomicUsize,
}

/// What the bringing thread hands on; the last one of an extent has its index.
struct Brought {
    landed: Landed,
    slot_offset: u64,
    index: Option<usize>,
}

impl Card {
    pub fn new(freight: Freight) -> Self {
        let extents = freight.extents.iter().filter(|extent| extent.place() == freight.place);
        let needs = Needs::new(&freight.layout, extents, freight.verify);
        Self { freight, needs, intake: Intake::default(), in_hand: AtomicUsize::new(0) }
    }

    /// Fails unless the card has room for the tensors, and the memory that is lent is its own.
    fn check_room(&self, entered: &Entered<'_>) -> Result<()> {
        for &(address, len_bytes) in self.freight.layout.lent() {
            check_is_of_card(entered, address, len_bytes)?;
        }
        let (tensors, staging) = (self.freight.layout.needed_bytes(), self.needs.card_bytes(DESKS));
        let (free, total) = entered.memory_bytes()?;
        if tensors + staging <= free {
            return Ok(());
        }
        let staging = match staging {
            0 => String::new(),
            bytes => format!(" (and {bytes} for staging)"),
        };
        Err(Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "{}: the tensors need {tensors} bytes{staging} and {free} of the card's {total} are \
                 free; free some, or load fewer tensors there (a device map spreads them)",
                self.device()
            ),
        ))
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
            let Some((index, slot)) = self.intake.next().filter(|_| !work.outlet.is_stopped())
            else {
                break;
            };
            let extent = &self.freight.extents[index];
            let layout = &self.freight.layout;
            let slot_offset = extent.slot_offset_bytes(self.freight.block_bytes[extent.shard()]);
            let addresses = work.holding.addresses(entered, layout, extent)?;
            let first = extent.positions().start;
            let base = |position: usize| addresses[position - first];
            let all = desk.bring(entered, &office, layout, extent, (slot, slot_offset), base)?;
            let last = all.len() - 1;
            for (number, landed) in all.into_iter().enumerate() {
                let index = (number == last).then_some(index);
                if brought.send(Brought { landed, slot_offset, index }).is_err() {
                    return Ok(()); // the landing thread failed, and says why
                }
            }
        }
        Ok(())
    }

    /// Hands out tensors as their last bytes arrive.
    fn land_all(&self, work: &Work<'_>, brought: Receiver<Brought>) -> Result<()> {
        let entered = work.context.enter()?;
        let layout = &self.freight.layout;
        let mut left_bytes = layout.lens_by_position();
        for Brought { mut landed, slot_offset, index } in brought {
            landed.landing.wait(&entered)?;
            work.outlet.verified(self.check_sums(&mut landed, slot_offset)?);
            drop(landed);
            let Some(index) = index else { continue };
            self.in_hand.fetch_sub(1, Ordering::AcqRel);
            let extent = &self.freight.extents[index];
            let is_whole = |position: usize| {
                left_bytes[position] -= layout.overlap_bytes(position, extent);
                left_bytes[position] == 0
            };
            for positions in runs(extent.positions(), layout.hands_out_singly(), is_whole) {
                let (storage, starts) = work.holding.hand_out(layout, &positions, self.device());
                work.outlet.deliver(Ready { positions, storage, starts });
            }
        }
        Ok(())
    }

    /// Fails unless the card has summed up the very bytes of the slot; gives how many those are.
    fn check_sums(&self, landed: &mut Landed, slot_offset: u64) -> Result<u64> {
        let summed = std::mem::take(&mut landed.summed);
        let expected: Vec<u64> = summed
            .iter()
            .map(|range| (range.start - slot_offset) as usize..(range.end - slot_offset) as usize)
            .map(|range| crc64_nvme(&landed.landing.bytes()[range]))
            .collect();
        let Some(sheet) = landed.landing.sheet() else { return Ok(0) };
        let sums = sheet.results(landed.piece_count).skip(landed.piece_count - summed.len());
        match std::iter::zip(sums, expected).position(|(sum, expected)| sum != expected) {
            None => Ok(summed.iter().map(|range| range.end - range.start).sum()),
            Some(at) => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{}: bytes {} to {} of a shard arrived on the card with another checksum than \
                     they had in host memory; check the card (nvidia-smi -q -d ECC) and load again",
                    self.device(),
                    summed[at].start,
                    summed[at].end
                ),
            )),
        }
    }
}

/// Whoever waits for slots is woken, however the landing thread ends.
struct CloseOnDrop<'a>(&'a Intake);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
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
        self.intake.push(index, full);
    }

    fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.intake.close();
    }

    fn run(&self, outlet: &dyn Outlet) -> Result<()> {
        let context = Context::retain(self.freight.ordinal)?;
        let entered = context.enter()?;
        self.check_room(&entered)?;
        let pin = self.freight.ring.pin(&entered);
        if let Err(why) = pin {
            outlet.downgrade("pinned", "pageable", why);
        }
        let work = Work { context: &context, outlet, holding: Holding::new(), pinned: pin.is_ok() };
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let work = &work;
            // The receiver goes with it: what is left in there when it fails is waited for and
            // dropped, and the copying thread stops.
            let landing = scope.spawn(move || {
                let _closed = CloseOnDrop(&self.intake);
                self.land_all(work, receiver)
            });
            let bringing = self.bring_all(work, &entered, &sender);
            drop(sender); // the landing thread ends when it has seen to the rest
            let landing = landing.join().unwrap_or_else(|panic| resume_unwind(panic));
            bringing.and(landing)
        })
    }
}

/// The runs of neighbours among `positions` that `is_whole` holds for; each by itself if `singly`.
fn runs(
    positions: Range<usize>,
    singly: bool,
    mut is_whole: impl FnMut(usize) -> bool,
) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for position in positions {
        match runs.last_mut() {
            _ if !is_whole(position) => {}
            Some(run) if run.end == position && !singly => run.end += 1,
            _ => runs.push(position..position + 1),
        }
    }
    runs
}
