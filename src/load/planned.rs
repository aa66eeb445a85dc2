//! Tells which tensors a load would read, without reading them.

use super::loader::Loader;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::plan::Plan;
use std::sync::Arc;

/// A tensor that a load would read, or the part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedTensor {
    /// The tensor's index in [`Checkpoint::tensors`].
    pub index: usize,
    /// The dimensions of the part that is loaded.
    pub shape: Vec<usize>,
    /// The bytes of the part, as stored.
    pub bytes: u64,
    /// The bytes to read for the part, which has gaps if rows are gathered. Reads of files are rounded to
    /// whole blocks, which this does not count.
    pub read_bytes: u64,
}

impl Loader {
    /// The tensors of `checkpoint` that a load with this loader's options would read, in the order of
    /// the checkpoint. Nothing is read. All that a load finds wrong with its
    /// [`slices`](Self::slices) is an error here, too.
    ///
    /// # Errors
    /// The errors of [`stream_checkpoint`](Self::stream_checkpoint) that are found before a load is
    /// started.
    pub fn planned(&self, checkpoint: &Arc<Checkpoint>) -> Result<Vec<PlannedTensor>> {
        let limit = self.resolved_memory_limit()?;
        let (selection, devices) = (&self.options.selection, &self.options.devices);
        let checkpoint = Arc::clone(checkpoint);
        let plan = Plan::new(checkpoint, limit, selection, devices, self.options.dtype)?;
        let planned = |(position, &index): (usize, &u32)| {
            let bytes = plan.span(position).len_bytes;
            let part = plan.part(position).map(|part| part.shape().to_vec());
            let tensor = &plan.checkpoint().tensors()[index as usize];
            PlannedTensor {
                index: index as usize,
                shape: part.unwrap_or_else(|| tensor.shape().to_vec()),
                bytes,
                read_bytes: bytes,
            }
        };
        let mut tensors: Vec<_> = plan.tensors().iter().enumerate().map(planned).collect();
        let mut last = None;
        for extent in plan.extents().iter().filter(|extent| extent.is_gathered()) {
            let position = extent.positions().start;
            if last.replace(position) != Some(position) {
                tensors[position].read_bytes = 0;
            }
            tensors[position].read_bytes += extent.len_bytes();
        }
        Ok(tensors)
    }
}
