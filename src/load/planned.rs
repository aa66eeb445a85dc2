//! Tells which tensors a load would read, and which bytes of them, without reading them.

use super::loader::Loader;
use crate::checkpoint::{Checkpoint, DescribedTensor};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::location::Location;
use crate::options::{DeviceMap, MemoryLimit, Order};
use crate::plan::{Plan, Selection};
use crate::source::{BorrowedMemory, BytesSource};
use std::ops::Range;
use std::sync::Arc;

/// A tensor that a load would read, or the part of it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// use ringload::{Loader, Slice, Slices};
/// use std::sync::Arc;
///
/// let half = Slices::default().with("norm", Slice::share(0, 1, 2))?;
/// let loader = Loader::new().slices(half);
/// let checkpoint = Arc::new(loader.open(&path)?);
/// for tensor in loader.planned(&checkpoint)? {
///     println!("{:?}: {} bytes", tensor.shape, tensor.bytes);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedTensor {
    /// The tensor's index in [`Checkpoint::tensors`].
    pub index: usize,
    /// The dimensions of the part that is loaded.
    pub shape: Vec<usize>,
    /// The bytes of the part, as stored.
    pub bytes: u64,
    /// The bytes to read for the part, with the gaps within it and before it that are read along. Reads of
    /// files are rounded to whole blocks, which this does not count.
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
                read_bytes: 0,
            }
        };
        let mut tensors: Vec<_> = plan.tensors().iter().enumerate().map(planned).collect();
        for extent in plan.extents().iter() {
            let mut at = extent.offset_bytes();
            for position in extent.positions() {
                // The gap before a tensor is read for it.
                let end = plan.end_bytes(position).min(extent.end_bytes()).max(at);
                tensors[position].read_bytes += end - at;
                at = end;
            }
        }
        Ok(tensors)
    }
}

/// The bytes of a tensor that a load would read: runs of equal length, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRuns {
    /// The tensor's index in [`Checkpoint::tensors`].
    pub index: usize,
    /// The type after the cast, if there is one.
    pub dtype: Dtype,
    /// The dimensions of the part that is loaded.
    pub shape: Vec<usize>,
    /// The offset of the first run in the tensor.
    pub first_bytes: u64,
    /// The length of each run.
    pub run_bytes: u64,
    /// How often runs repeat, and at which distance in bytes, over each dimension, outermost first.
    pub repeats: Vec<(u64, u64)>,
}

/// The bytes that a load of `checkpoint` with the options of `loader` would read, in the order of the
/// checkpoint, under no memory limit.
///
/// # Errors
/// Those of [`Loader::planned`], except for the memory limit.
pub fn planned_runs(loader: &Loader, checkpoint: &Arc<Checkpoint>) -> Result<Vec<PlannedRuns>> {
    let (selection, devices) = (&loader.options.selection, &loader.options.devices);
    let (limit, dtype) = (MemoryLimit::Unlimited, loader.options.dtype);
    let plan = Plan::new(Arc::clone(checkpoint), limit, selection, devices, dtype)?;
    let runs = |(position, &index): (usize, &u32)| {
        let tensor = &checkpoint.tensors()[index as usize];
        let cast = plan.cast_of(tensor).and(plan.dtype());
        let part = plan.part(position);
        PlannedRuns {
            index: index as usize,
            dtype: cast.unwrap_or(tensor.dtype()),
            shape: part.map_or(tensor.shape(), |part| part.shape()).to_vec(),
            first_bytes: part.map_or(0, |part| part.runs().first_bytes()),
            run_bytes: part.map_or(tensor.len_bytes(), |part| part.runs().run_bytes()),
            repeats: part.map_or_else(Vec::new, |part| part.runs().repeats().to_vec()),
        }
    };
    Ok(plan.tensors().iter().enumerate().map(runs).collect())
}

/// Byte ranges of the tensors of `checkpoint` as tensors of a checkpoint of their own, and a loader that
/// yields them in this order, in host memory, with all other options of `loader`. A range is the index
/// of a tensor, and bytes from its beginning; it becomes a tensor of U8 whose name is its position in
/// `ranges`.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if ranges exceed their tensors, or are not in the
/// order of the checkpoint.
pub fn checkpoint_of_ranges(
    loader: &Loader,
    checkpoint: &Checkpoint,
    ranges: &[(usize, Range<u64>)],
) -> Result<(Loader, Checkpoint)> {
    let mut loader = loader.clone();
    loader.options.selection = Selection::default();
    loader.options.devices = DeviceMap::default();
    loader.options.dtype = None;
    loader.options.order = Order::File;
    Ok((loader.caller_may_retain_all(false), checkpoint.of_ranges(ranges)?))
}

/// Some tensors of a checkpoint, which are in memory, as a checkpoint of their own, and a loader that loads
/// them with all options of `loader`: to GPUs through a pinned ring, cast, or in parts. `location` names
/// the memory in messages.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the tensors are not in the order of their offsets,
/// overlap or exceed the memory.
pub fn checkpoint_in_memory(
    loader: &Loader,
    location: &str,
    memory: &Arc<BorrowedMemory>,
    tensors: &[DescribedTensor],
) -> Result<(Loader, Checkpoint)> {
    let mut loader = loader.clone();
    let selection = loader.options.selection;
    loader.options.selection =
        Selection { slices: selection.slices.of_some(), ..Selection::default() };
    let source = BytesSource::new(Location::parse(location)?, memory.len_bytes(), memory);
    Ok((loader, Checkpoint::described(Arc::new(source), tensors)?))
}

/// A checkpoint of `tensors` whose bytes are elsewhere: loads of it can be planned and not run.
///
/// # Errors
/// As [`checkpoint_in_memory`].
pub fn described_checkpoint(location: &str, tensors: &[DescribedTensor]) -> Result<Checkpoint> {
    let source = BytesSource::new(Location::parse(location)?, u64::MAX, &Arc::default());
    Checkpoint::described(Arc::new(source), tensors)
}
