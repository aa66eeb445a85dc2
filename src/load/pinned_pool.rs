//! The pinned ring that is kept between loads.
//!
//! Pinning memory takes as long as copying a small model, so a loader keeps the ring for its next
//! load, as long as it fits. It is unpinned with the loader and its clones.
//!
//! In a program that makes a loader for each load, as Python's functions do, the loaders share the pool
//! of the process. That one has no end, so a thread unpins its ring a while after the last load.

use crate::device::cuda::PinnedRing;
use crate::error::Result;
use crate::fork_guard::ForkGuard;
use crate::ring::Ring;
use crate::sync::{Condvar, Mutex};
use crate::sys;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// How long the ring of a process is kept after its last load. The files of a checkpoint that are loaded
/// one by one follow each other faster, also where a model is built in between.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The pool of this process. A child that was forked from it has neither its threads nor its GPUs.
static OF_PROCESS: OnceLock<ForkGuard<PinnedPool>> = OnceLock::new();

/// The pinned ring that is kept between the loads of some loaders.
#[derive(Clone, Default)]
pub(super) struct PinnedPool(Arc<Pool>);

#[derive(Default)]
struct Pool {
    state: Mutex<PoolState>,
    /// Notified when the ring is taken by [`PinnedPool::unpin`], and when its thread has ended.
    changed: Condvar,
    /// After which time a thread unpins the ring; `None` if the owner of the pool ends.
    kept_for: Option<Duration>,
}

#[derive(Default)]
struct PoolState {
    /// The ring, and since when no load uses it.
    ring: Option<(Arc<PinnedRing>, Instant)>,
    /// Whether a thread waits to unpin it.
    has_thread: bool,
}

/// A pinned ring that one load uses. Dropping it returns the ring to the pool, if that still exists.
pub(super) struct PinnedGuard {
    ring: Arc<PinnedRing>,
    pool: Weak<Pool>,
}

/// Unpins the ring that loaders of this process share, if no load uses it. Otherwise that is done some time
/// after the last load.
pub fn unpin_shared_ring() {
    OF_PROCESS.get().and_then(ForkGuard::get).into_iter().for_each(PinnedPool::unpin);
}

impl PinnedPool {
    /// The pool that loaders of this process share.
    pub fn of_process() -> Self {
        let new = || {
            let pool = Pool { kept_for: Some(KEPT_FOR), ..Pool::default() };
            ForkGuard::new(Self(Arc::new(pool)))
        };
        OF_PROCESS.get_or_init(new).get().cloned().unwrap_or_default()
    }

    /// Unpins the ring, if no load uses it, and waits until that is done.
    fn unpin(&self) {
        let Pool { state, changed, .. } = &*self.0;
        let ring = state.lock().ring.take();
        drop(ring);
        changed.notify_all();
        drop(changed.wait_while(state.lock(), |state| state.has_thread && state.ring.is_none()));
    }

    /// Takes the ring that was kept, if its size in bytes is in `bytes`, its blocks have
    /// `block_bytes`, and its pages prefer the NUMA node `node`. Otherwise creates one of the smallest
    /// size.
    pub fn take(
        &self,
        bytes: RangeInclusive<usize>,
        block_bytes: usize,
        node: Option<usize>,
    ) -> Result<PinnedGuard> {
        let kept = self.0.state.lock().ring.take().map(|(ring, _)| ring);
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
        Ok(PinnedGuard { ring, pool: Arc::downgrade(&self.0) })
    }
}

impl Pool {
    fn put_back(self: &Arc<Self>, ring: &Arc<PinnedRing>) {
        let mut state = self.state.lock();
        let former = state.ring.replace((Arc::clone(ring), Instant::now()));
        let starts = self.kept_for.is_some() && !std::mem::replace(&mut state.has_thread, true);
        drop(state);
        drop(former); // unpins it, which takes long, without holding the lock
        let pool = Arc::clone(self);
        if starts && sys::spawn("ringload-unpin", move || pool.unpin_later()).is_err() {
            let mut state = self.state.lock();
            state.has_thread = false;
            let unkept = state.ring.take();
            drop(state);
            drop(unkept);
        }
    }

    /// Unpins the ring when its time has come. Returns if a load uses it or it was unpinned.
    fn unpin_later(&self) {
        let mut state = self.state.lock();
        while let (Some((_, since)), Some(kept_for)) = (&state.ring, self.kept_for) {
            let left = kept_for.saturating_sub(since.elapsed());
            if left.is_zero() {
                let expired = state.ring.take();
                drop(state);
                drop(expired);
                state = self.state.lock();
            } else {
                (state, _) = self.changed.wait_for(state, left);
            }
        }
        state.has_thread = false;
        drop(state);
        self.changed.notify_all();
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
            pool.put_back(&self.ring);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 20;

    fn address_of(guard: &PinnedGuard) -> *const Ring {
        Arc::as_ptr(guard.ring().ring())
    }

    fn pool_that_keeps_for(kept_for: Option<Duration>) -> PinnedPool {
        PinnedPool(Arc::new(Pool { kept_for, ..Pool::default() }))
    }

    #[test]
    fn a_ring_is_taken_again_if_it_fits() {
        let pool = pool_that_keeps_for(None);
        let first = pool.take(BYTES..=BYTES, 4096, None).unwrap();
        let address = address_of(&first);
        drop(first);
        let again = pool.take(BYTES / 2..=2 * BYTES, 4096, None).unwrap();
        assert_eq!(address_of(&again), address);
        drop(again);
        let larger = pool.take(2 * BYTES..=2 * BYTES, 4096, None).unwrap();
        assert_eq!(larger.ring().ring().capacity(), 2 * BYTES);
    }

    #[test]
    fn the_ring_of_a_process_is_dropped_after_a_while_and_not_while_a_load_uses_it() {
        let pool = pool_that_keeps_for(Some(Duration::from_millis(20)));
        let first = pool.take(BYTES..=BYTES, 4096, None).unwrap();
        let ring = Arc::downgrade(first.ring());
        drop(first);
        let used = pool.take(BYTES..=BYTES, 4096, None).unwrap();
        let used_ring = Arc::downgrade(used.ring());
        let Pool { state, changed, .. } = &*pool.0;
        drop(changed.wait_while(state.lock(), |state| state.has_thread));
        assert!(used_ring.upgrade().is_some());
        drop(used);
        drop(changed.wait_while(state.lock(), |state| state.has_thread));
        assert!(ring.upgrade().is_none() && used_ring.upgrade().is_none());
    }

    #[test]
    fn a_process_that_ends_does_not_wait_for_the_time_of_its_ring() {
        let pool = pool_that_keeps_for(Some(Duration::from_secs(3600)));
        let guard = pool.take(BYTES..=BYTES, 4096, None).unwrap();
        let ring = Arc::downgrade(guard.ring());
        drop(guard);
        pool.unpin();
        assert!(ring.upgrade().is_none());
        assert!(!pool.0.state.lock().has_thread);
    }
}
