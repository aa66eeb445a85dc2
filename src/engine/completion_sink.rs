//! The interface by which device transfers report to their load.

use super::queue::Completion;
use super::shared::Shared;
use crate::device::CompletionSink;
use crate::options::Device;
use crate::source::Downgrade;
use crate::tensor::LoadedTensors;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl CompletionSink for Shared {
    fn deliver(&self, ready: LoadedTensors) {
        self.queue.push(Completion::Tensors(ready));
    }

    fn downgrade(&self, from: &'static str, to: &'static str, why: &str) {
        self.stats.downgrade(Downgrade { from, to, why: why.to_owned() });
    }

    fn record_step(&self, step: &'static str, device: Device, since: Instant) {
        if let Some(recorder) = &self.job.recorder {
            recorder.step(step, Some(device), since);
        }
    }

    fn add_verified(&self, bytes: u64) {
        self.stats.device_verified_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled()
    }
}
