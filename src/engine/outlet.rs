//! What carriers tell the load that they work for.

use super::{Done, Shared};
use crate::device::Outlet;
use crate::options::Device;
use crate::source::Downgrade;
use crate::tensor::Ready;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Outlet for Shared {
    fn deliver(&self, ready: Ready) {
        self.queue.push(Done::Tensors(ready));
    }

    fn downgrade(&self, from: &'static str, to: &'static str, why: &str) {
        self.stats.downgrade(Downgrade { from, to, why: why.to_owned() });
    }

    fn took(&self, step: &'static str, device: Device, since: Instant) {
        if let Some(recorder) = &self.job.recorder {
            recorder.step(step, Some(device), since);
        }
    }

    fn verified(&self, bytes: u64) {
        self.stats.card_verified_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.is_cancelled()
    }
}
