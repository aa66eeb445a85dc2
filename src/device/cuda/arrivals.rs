//! Which tensors are in place: those of which the last bytes arrived.

use super::layout::Layout;
use crate::plan::Extent;
use std::ops::Range;

/// What is still to come, by position.
pub(super) struct Arrivals {
    left_bytes: Vec<u64>,
}

impl Arrivals {
    /// Nothing of `layout` has arrived.
    pub fn new(layout: &Layout) -> Self {
        Self { left_bytes: layout.lens_by_position() }
    }

    /// Takes in that `extent` has arrived. Gives the runs of neighbours that are whole now; each by
    /// itself where each has a storage of its own.
    pub fn add(&mut self, layout: &Layout, extent: &Extent) -> Vec<Range<usize>> {
        let is_whole = |position: usize| {
            self.left_bytes[position] -= layout.overlap_bytes(position, extent);
            self.left_bytes[position] == 0
        };
        runs(extent.positions(), layout.hands_out_singly(), is_whole)
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
