//! The pinned ring that a loader keeps between its loads.
//!
//! Pinning memory takes as long as copying a small model, so the loader keeps the ring for its next
//! load, as long as it fits. It is unpinned with the loader and its clones.

use crate::device::cuda::PinnedRing;
use crate::error::Result;
use crate::ring::Ring;
use crate::sync::Mutex;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

/// The pinned ring that a loader keeps between its loads.
#[derive(Clone, Default)]
pub(super) struct PinnedPool {
    ring: Arc<Mutex<Option<Arc<PinnedRing>>>>,
}

/// A pinned ring that one load uses. Dropping it returns the ring to the pool, if that still exists.
pub(super) struct PinnedGuard {
    ring: Arc<PinnedRing>,
    pool: Weak<Mutex<Option<Arc<PinnedRing>>>>,
}

impl PinnedPool {
    /// Takes the ring that was kept, if its size in bytes is in `bytes`, its blocks have
    /// `block_bytes`, and its pages prefer the NUMA node `node`. Otherwise creates one of the smallest
    /// size.
    pub fn take(
        &self,
        bytes: RangeInclusive<usize>,
        block_bytes: usize,
        node: Option<usize>,
    ) -> Result<PinnedGuard> {
        let kept = self.ring.lock().take();
        let fits = |kept: &Arc<PinnedRing>| {
            let ring = kept.ring();
            bytes.contains(&ring.capacity())
                && ring.block_bytes() == block_bytes
                && ring.node() == node
                && ring.reopen()
        };
        let ring = match kept.filter(fits) {
            Some(kept) => kept,
            None => {
                let ring = Ring::keeping_memory(*bytes.start(), block_bytes, node)?;
                Arc::new(PinnedRing::new(ring))
            }
        };
        Ok(PinnedGuard { ring, pool: Arc::downgrade(&self.ring) })
    }
}

impl PinnedGuard {
    pub fn ring(&self) -> &Arc<PinnedRing> {
        &self.ring
    }
}

impl Drop for PinnedGuard {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let former = pool.lock().replace(Arc::clone(&self.ring));
            drop(former); // unpins it, which takes long, without holding the lock
        }
    }
}
