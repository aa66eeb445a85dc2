//! The carrier of one card: copies full slots to it while later ones are being read.
//!
//! ```text
//! engines --take--> Intake --> copying thread --(Landing: slot + event)--> landing thread --> Outlet
//!                              context, pin,                               waits for the event,
//!                              copies on two streams                       slot back to the ring
//! ```
//!
//! The context is made on the copying thread while the engines already fill the first slots; then
//! the ring is pinned. Memory is checked before anything is copied: too little is an error that
//! names both figures.

use super::context::{Context, Entered};
use super::holding::Holding;
use super::intake::Intake;
use super::landing::Landing;
use super::layout::Layout;
use super::memory::{PinnedRing, check_is_of_card};
use super::stream::{Stream, copy_in_now};
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
const STREAMS: usize = 2;

/// What a card is to carry.
pub(crate) struct Freight {
    pub ordinal: u32,
    pub extents: Arc<[Extent]>,
    /// By source: what its slots are aligned to.
    pub block_bytes: Vec<usize>,
    pub layout: Layout,
    pub ring: Arc<PinnedRing>,
}

/// A card at work for one load.
pub(crate) struct Card {
    freight: Freight,
    intake: Intake,
    in_hand: AtomicUsize,
}

/// What the copying thread hands on.
struct Copied {
    index: usize,
    landing: Landing,
}

impl Card {
    pub fn new(freight: Freight) -> Self {
        Self { freight, intake: Intake::default(), in_hand: AtomicUsize::new(0) }
    }

    /// Fails unless the card has room for the tensors, and the memory that is lent is its own.
    fn check_room(&self, entered: &Entered<'_>) -> Result<()> {
        for &(address, len_bytes) in self.freight.layout.lent() {
            check_is_of_card(entered, address, len_bytes)?;
        }
        let needed = self.freight.layout.needed_bytes();
        let (free, total) = entered.memory_bytes()?;
        if needed <= free {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "{}: the tensors need {needed} bytes and {free} of the card's {total} are free; \
                 free some, or load fewer tensors there (a device map spreads them)",
                self.device()
            ),
        ))
    }

    /// Copies slots as they come.
    fn copy_all(
        &self,
        work: &Work<'_>,
        entered: &Entered<'_>,
        copied: &Sender<Copied>,
    ) -> Result<()> {
        let streams: Vec<_> = (0..STREAMS).map(|_| Stream::new(entered)).collect::<Result<_>>()?;
        for stream in streams.iter().cycle() {
            let Some((index, slot)) = self.intake.next().filter(|_| !work.outlet.is_stopped())
            else {
                break;
            };
            let mut landing = Landing::new(work.context, stream, slot);
            self.copy(work, entered, index, &landing)?;
            landing.mark(entered)?;
            if copied.send(Copied { index, landing }).is_err() {
                break; // the landing thread failed, and says why
            }
        }
        Ok(())
    }

    /// Queues the copies of extent `index`.
    fn copy(
        &self,
        work: &Work<'_>,
        entered: &Entered<'_>,
        index: usize,
        landing: &Landing,
    ) -> Result<()> {
        let extent = &self.freight.extents[index];
        let addresses = work.holding.addresses(entered, &self.freight.layout, extent)?;
        let first = extent.positions().start;
        let slot_offset = extent.slot_offset_bytes(self.freight.block_bytes[extent.shard()]);
        for copy in self.freight.layout.copies(extent, |position| addresses[position - first]) {
            let from = &landing.bytes()[(copy.from - slot_offset) as usize..];
            let from = &from[..copy.len_bytes as usize];
            // SAFETY: the landing keeps the slot, full and thus unchanged, until the copy is done,
            // and the slot is of the pinned ring. The target lies within an allocation that the
            // holding keeps until its tensors are handed out (or that the caller lends), at a place
            // that belongs to this part of this tensor alone.
            unsafe {
                if work.pinned {
                    landing.stream().copy_in(entered, copy.to, from)?;
                } else {
                    copy_in_now(entered, copy.to, from)?;
                }
            }
        }
        Ok(())
    }

    /// Hands out tensors as their last bytes arrive.
    fn land_all(&self, work: &Work<'_>, copied: Receiver<Copied>) -> Result<()> {
        let entered = work.context.enter()?;
        let layout = &self.freight.layout;
        let mut left_bytes = layout.lens_by_position();
        for Copied { index, landing } in copied {
            landing.wait(&entered)?;
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
            let copying = self.copy_all(work, &entered, &sender);
            drop(sender); // the landing thread ends when it has seen to the rest
            let landing = landing.join().unwrap_or_else(|panic| resume_unwind(panic));
            copying.and(landing)
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
