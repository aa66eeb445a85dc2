//! Tracks which tensors are complete, that is, have all their bytes on the GPU.

use super::allocations::Allocations;
use super::layout::{Addresses, Layout};
use crate::metrics;
use crate::options::Device;
use crate::plan::Extent;
use crate::tensor::LoadedTensors;
use std::ops::Range;

/// The bytes that each tensor still lacks, by position.
pub(super) struct CompletionTracker {
    missing_bytes: Vec<u64>,
}

impl CompletionTracker {
    /// Creates a tracker for `layout`, none of whose bytes have arrived.
    pub fn new(layout: &Layout) -> Self {
        Self { missing_bytes: layout.items.iter().map(|item| item.len_bytes).collect() }
    }

    /// Records that `extent` is on `device`. Returns the tensors that this completes.
    pub fn complete(
        &mut self,
        layout: &Layout,
        allocations: &Allocations,
        extent: &Extent,
        device: Device,
    ) -> impl Iterator<Item = LoadedTensors> {
        metrics::device_bytes(device.to_string(), extent.len_bytes());
        let runs = self.complete_runs(layout, extent);
        runs.into_iter().map(move |run| allocations.hand_out(layout, run, device))
    }

    /// The runs of adjacent positions that `extent` completes. A run has one position if each tensor
    /// has its own storage.
    fn complete_runs(&mut self, layout: &Layout, extent: &Extent) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for position in extent.positions() {
            let missing_bytes = &mut self.missing_bytes[position];
            *missing_bytes -= layout.overlap_bytes(position, extent);
            match runs.last_mut() {
                _ if *missing_bytes > 0 => {}
                Some(run) if run.end == position && layout.addresses != Addresses::PerTensor => {
                    run.end += 1;
                }
                _ => runs.push(position..position + 1),
            }
        }
        runs
    }
}
