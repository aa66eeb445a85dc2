//! The memory and the carriers of a load: a ring for what stays in host memory, one for what passes
//! through on its way to cards.
//!
//! The second one is pinned, which takes as long as copying a small model. A loader keeps it for its
//! next load, as long as that fits: [`Kept`]. It is let go with the loader (and its clones).

use super::Loader;
use crate::device::Carrier;
use crate::device::cuda::{Card, Destination, Freight, Layout, Origin, PinnedRing};
use crate::engine::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Allocation, Device};
use crate::plan::{Extent, Plan};
use crate::ring::Ring;
use crate::source::Source;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The pinned ring that a loader keeps between its loads.
#[derive(Clone, Default)]
pub(super) struct Kept {
    ring: Arc<Mutex<Option<Arc<PinnedRing>>>>,
}

/// A pinned ring in use by one load; back to its loader on drop, if that is still there.
pub(super) struct Lease {
    ring: Arc<PinnedRing>,
    home: Weak<Mutex<Option<Arc<PinnedRing>>>>,
}

impl Kept {
    /// A pinned ring of `bytes`, at most `most` bytes, in blocks of `block_bytes`, at NUMA node `node`:
    /// the one that was kept, if it is right.
    fn lease(
        &self,
        bytes: usize,
        most: usize,
        block_bytes: usize,
        node: Option<usize>,
    ) -> Result<Lease> {
        let kept = self.ring.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_right = |kept: &Arc<PinnedRing>| {
            let ring = kept.ring();
            let fits = (bytes..=most).contains(&ring.capacity());
            let fits = fits && ring.block_bytes() == block_bytes && ring.node() == node;
            fits && ring.reopen()
        };
        let ring = match kept.filter(is_right) {
            Some(kept) => kept,
            None => Arc::new(PinnedRing::new(Ring::keeping_memory(bytes, block_bytes, node)?)),
        };
        Ok(Lease { ring, home: Arc::downgrade(&self.ring) })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            let mut kept = home.lock().unwrap_or_else(PoisonError::into_inner);
            let former = kept.replace(Arc::clone(&self.ring));
            drop(kept);
            drop(former); // unpins, which takes its time
        }
    }
}

/// The rings of a load.
pub(super) struct Rings {
    pub host: Option<Arc<Ring>>,
    pub cards: Option<Lease>,
}

/// How large the rings of a load have to be, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// `None` where nothing stays in host memory.
    pub host: Option<u64>,
    /// The least and the most for cards; `None` where nothing goes to one.
    pub cards: Option<(u64, u64)>,
    /// What slots are aligned to.
    pub block: usize,
}

impl Sizes {
    /// Those of a plan's load.
    pub fn of(plan: &Plan) -> Self {
        let has_cards = plan.has_cards();
        // A load of nothing at all has a ring for the host.
        let has_host = plan.devices().contains(&Device::Host) || !has_cards;
        Self {
            host: has_host.then(|| plan.host_ring_bytes()),
            cards: has_cards.then(|| (plan.card_ring_bytes(), plan.card_ring_bytes_max())),
            block: plan.block_bytes(),
        }
    }
}

impl Rings {
    /// For a load by `loader`; what cards read from is at NUMA node `node`.
    ///
    /// # Errors
    /// When the address space does not allow it.
    pub fn new(loader: &Loader, sizes: Sizes, node: Option<usize>) -> Result<Self> {
        let block = sizes.block;
        let host = sizes.host.map(|bytes| Ring::new(address_space(bytes)?, block)).transpose()?;
        let cards = sizes.cards.map(|(least, most)| {
            let least = address_space(least.max(1))?.next_multiple_of(block);
            let most = address_space(most)?.next_multiple_of(block);
            loader.kept.lease(least, most, block, node)
        });
        Ok(Self { host, cards: cards.transpose()? })
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Ring>> {
        self.host.iter().chain(self.cards.iter().map(|lease| lease.ring.ring())).cloned().collect()
    }
}

/// A size in bytes as one of memory.
fn address_space(bytes: u64) -> Result<usize> {
    usize::try_from(bytes)
        .map_err(|_| Error::new(ErrorKind::OutOfMemory, "the checkpoint exceeds the address space"))
}

/// What extents are carried to which devices, and what stands in them.
pub(super) struct Cargo<'a> {
    pub devices: &'a [Device],
    pub extents: &'a Arc<[Extent]>,
    pub sources: &'a [Arc<dyn Source>],
    /// The layout on the card of this index among the devices.
    pub layout: &'a dyn Fn(usize) -> Layout,
    /// Whether cards sum up what arrives.
    pub verify: bool,
}

/// The carriers of a load.
pub(super) type Carriers = Vec<Arc<dyn Carrier>>;

/// The places of the devices, and the carriers among them.
pub(super) fn places(rings: &Rings, cargo: &Cargo<'_>) -> Result<(Vec<Place>, Carriers)> {
    let mut places = Vec::with_capacity(cargo.devices.len());
    let mut carriers = Carriers::new();
    for (index, device) in cargo.devices.iter().enumerate() {
        match (device, &rings.host, &rings.cards) {
            (Device::Host, Some(ring), _) => {
                places.push(Place { ring: Arc::clone(ring), carrier: None });
            }
            (Device::Cuda(ordinal), _, Some(lease)) => {
                let card: Arc<dyn Carrier> = Arc::new(Card::new(Freight {
                    ordinal: *ordinal,
                    extents: Arc::clone(cargo.extents),
                    origins: cargo.sources.iter().map(|source| origin(&**source)).collect(),
                    layout: (cargo.layout)(index),
                    place: index,
                    verify: cargo.verify,
                    ring: Arc::clone(&lease.ring),
                }));
                carriers.push(Arc::clone(&card));
                let ring = Arc::clone(lease.ring.ring());
                places.push(Place { ring, carrier: Some(card) });
            }
            // Rings are made for the very devices of the load.
            _ => return Err(Error::new(ErrorKind::Unsupported, format!("no ring for {device}"))),
        }
    }
    Ok((places, carriers))
}

fn origin(source: &dyn Source) -> Origin {
    Origin { location: source.location().clone(), block_bytes: source.block_bytes() }
}

/// Where the tensors of a plan go on the card of index `place`.
pub(super) fn layout_of(plan: &Plan, place: usize, allocation: Allocation) -> Layout {
    let destination = match allocation {
        Allocation::PerShard => Destination::PerShard,
        Allocation::PerTensor => Destination::PerTensor,
    };
    let shards = plan.checkpoint().shards().len();
    Layout::new(Layout::items_of(plan), plan.extents(), place, shards, destination)
}
