//! Copies a slot to the GPU: the copies and kernels of one stream.
//!
//! ```text
//! few copies:  slot --copy--> tensors ...                            [--crc64 of the tensors]
//! staged:      slot --copy--> staging --scatter, cast--> tensors     [--crc64 of tensors and staging]
//! ```
//!
//! A slot is staged if one of its tensors is cast, or if its tensors have so many destinations that a
//! kernel moves them faster than single copies would. Each stream has one staging buffer. The work of
//! a stream is executed in order, so the next slot cannot overwrite the buffer too early.
//!
//! With `--verify` the GPU computes a CRC-64 of the bytes it received, and the completion thread
//! compares it with the one that the engine computed from the slot. The checksum of a tensor that is
//! cast covers the bytes before the cast.

use super::context::Entered;
use super::in_flight_copy::InFlightCopy;
use super::kernels::{Kernel, Kernels, Piece};
use super::launch_arguments::{ArgumentPool, LaunchArguments};
use super::layout::{Layout, TensorCopy};
use super::memory::DeviceMemory;
use super::stream::Stream;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::plan::Extent;
use crate::ring::FullSlot;
use crate::tensor::GpuMemory;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// The maximum number of pieces of one list, which then takes 2 MiB.
const LIST_PIECES_MAX: usize = 1 << 16;

/// The resources of a GPU that the slots of a load need, besides the memory of the tensors.
#[derive(Debug, Default)]
pub(super) struct TransferRequirements {
    /// The length of the longest staged extent; 0 if none is staged.
    pub staging_bytes: u64,
    /// The greatest number of pieces of an extent, at most `LIST_PIECES_MAX`.
    pub piece_count: usize,
    /// The kernels to launch.
    pub kernels: BTreeSet<Kernel>,
}

impl TransferRequirements {
    /// The requirements of these extents of one GPU.
    pub fn new<'a>(
        layout: &Layout,
        extents: impl Iterator<Item = &'a Extent>,
        verify: bool,
    ) -> Self {
        let mut required = Self::default();
        for extent in extents {
            let mut count = 0;
            if layout.few_copies(extent, layout.relative_base()).is_none() {
                required.staging_bytes = required.staging_bytes.max(extent.len_bytes());
                count += required.add_staged(layout, extent);
            }
            if verify {
                count += required.add_checksums(layout, extent);
            }
            required.piece_count = required.piece_count.max(count);
        }
        required.piece_count = required.piece_count.min(LIST_PIECES_MAX);
        required
    }

    /// Adds the kernels of a staged extent. Returns the number of their pieces: of the [`kernel_jobs`],
    /// which are not listed for it.
    fn add_staged(&mut self, layout: &Layout, extent: &Extent) -> usize {
        let base = layout.relative_base();
        let pieces = |kernel: Kernel, copy: &TensorCopy| {
            copy.len_bytes.div_ceil(kernel.piece_bytes_max()) as usize
        };
        let copies = layout.copies(extent, base);
        self.kernels.extend((!copies.is_empty()).then_some(Kernel::Scatter));
        let mut count = copies.iter().map(|copy| pieces(Kernel::Scatter, copy)).sum();
        for (copy, cast) in layout.casts(extent, base) {
            let kernel = Kernel::Cast(cast.from(), cast.to());
            self.kernels.insert(kernel);
            count += pieces(kernel, &copy);
        }
        count
    }

    /// The same for the checksums of an extent.
    fn add_checksums(&mut self, layout: &Layout, extent: &Extent) -> usize {
        let count = layout.checksummed(extent, Kernel::Crc64.piece_bytes_max()).count();
        self.kernels.extend((count > 0).then_some(Kernel::Crc64));
        count
    }

    /// The GPU memory that one stream needs for its list of pieces, in bytes.
    fn list_bytes(&self) -> u64 {
        if self.kernels.is_empty() { 0 } else { ArgumentPool::bytes(self.piece_count) as u64 }
    }

    /// The GPU memory that one stream needs, in bytes.
    pub fn bytes_per_stream(&self) -> u64 {
        self.staging_bytes + self.list_bytes()
    }
}

/// The kernels and launch arguments that all copy streams of a load share.
pub(super) struct TransferContext {
    pub kernels: Kernels,
    /// `None` if no kernel is needed.
    pub arguments: Option<ArgumentPool>,
    pub verify: bool,
}

/// One stream and its memory on the GPU.
pub(super) struct CopyStream {
    stream: Arc<Stream>,
    staging: Option<Arc<DeviceMemory>>,
    list: Option<Arc<DeviceMemory>>,
}

impl CopyStream {
    /// Creates a stream with the memory that `required` demands. `pinned` says whether slots and
    /// launch arguments are registered with CUDA.
    ///
    /// # Errors
    /// If the GPU is out of memory.
    pub fn new(
        entered: &Entered<'_>,
        required: &TransferRequirements,
        pinned: bool,
    ) -> Result<Self> {
        let allocate = |bytes: u64| {
            (bytes > 0).then(|| DeviceMemory::new(entered, bytes as usize)).transpose()
        };
        Ok(Self {
            stream: Stream::new(entered, pinned)?,
            staging: allocate(required.staging_bytes)?,
            list: allocate(required.list_bytes())?,
        })
    }

    /// Queues the copies and kernels of `extent`. `slot` holds the source's bytes from
    /// `slot_offset`; `base` returns the address of the item at a position.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn queue(
        &self,
        entered: &Entered<'_>,
        context: &TransferContext,
        layout: &Layout,
        extent: &Extent,
        (slot, slot_offset): (FullSlot, u64),
        base: impl Fn(usize) -> u64 + Copy,
    ) -> Result<Vec<InFlightCopy>> {
        let mut last = InFlightCopy::new(&self.stream, Some(slot));
        let few = layout.few_copies(extent, base);
        let staging = self.staging.as_ref().filter(|_| few.is_none());
        let staged = staging.map(|memory| memory.address());
        let copies = match staged {
            Some(to) => {
                let (from, len_bytes) = (extent.offset_bytes(), extent.len_bytes());
                vec![TensorCopy { from, to, len_bytes }]
            }
            None => few.unwrap_or_else(|| layout.copies(extent, base)),
        };
        for copy in copies {
            let from = &last.bytes()[(copy.from - slot_offset) as usize..];
            let from = &from[..copy.len_bytes as usize];
            // SAFETY: `last` keeps the slot unchanged until the stream has copied it. The target is
            // the staging buffer, which only this stream uses; or it belongs to this part of this
            // tensor only and is kept until the tensor is handed out.
            unsafe { self.stream.copy_in(entered, copy.to, from) }?;
        }
        let mut queued = Vec::new();
        if let (Some(pool), Some(list)) = (&context.arguments, &self.list) {
            let jobs = kernel_jobs(layout, extent, base, staged, context.verify);
            for batch in jobs.chunks(pool.piece_count) {
                let next = last.another();
                let mut copy = std::mem::replace(&mut last, next);
                let arguments = copy.keep(pool.take());
                self.launch(entered, context, arguments, list.address(), batch)?;
                copy.finish_queueing(entered)?;
                queued.push(copy);
            }
        }
        last.finish_queueing(entered)?;
        queued.push(last);
        Ok(queued)
    }

    /// Queues the kernels of one list of pieces.
    fn launch(
        &self,
        entered: &Entered<'_>,
        context: &TransferContext,
        arguments: &mut LaunchArguments,
        list: u64,
        batch: &[(Kernel, Piece)],
    ) -> Result<()> {
        let is_checksum = |&&(kernel, _): &&(Kernel, Piece)| kernel == Kernel::Crc64;
        arguments.checksum_count = batch.iter().filter(is_checksum).count();
        let bytes = arguments.write(batch.iter().map(|&(_, piece)| piece));
        // SAFETY: the caller's `InFlightCopy` keeps the arguments unchanged until the stream has
        // copied them. Only this stream uses the list.
        unsafe { self.stream.copy_in(entered, list, bytes) }?;
        let results = list + arguments.results_offset() as u64;
        let mut start = 0;
        for run in batch.chunk_by(|(left, _), (right, _)| left == right) {
            let pieces = list + (start * size_of::<Piece>()) as u64;
            let results = results + (start * size_of::<u64>()) as u64;
            // SAFETY: the list belongs to this stream, in which its content was written before. The
            // sources are the staging buffer or the tensors, which were written before too; the
            // targets belong to these parts of these tensors only. All of them are kept until the
            // copy has finished: by this stream, by the allocations, or by the caller who owns the
            // memory.
            unsafe {
                context.kernels.launch(
                    entered,
                    &self.stream,
                    run[0].0,
                    pieces,
                    run.len() as u32,
                    results,
                )?;
            }
            start += run.len();
        }
        if arguments.checksum_count > 0 {
            // SAFETY: as above, for the results of the list.
            unsafe { self.stream.copy_out(entered, arguments.results_mut(), results) }?;
        }
        Ok(())
    }
}

impl Drop for CopyStream {
    /// Waits until no work in the stream uses the buffers any more.
    fn drop(&mut self) {
        self.stream.drain();
    }
}

/// The pieces of `extent` with their kernels, in the order of the kernels. `staged` is the address of
/// the staged extent, if it is staged.
fn kernel_jobs(
    layout: &Layout,
    extent: &Extent,
    base: impl Fn(usize) -> u64 + Copy,
    staged: Option<u64>,
    verify: bool,
) -> Vec<(Kernel, Piece)> {
    let mut jobs = Vec::new();
    let in_staging = |staged: u64, from: u64| staged + (from - extent.offset_bytes());
    if let Some(staged) = staged {
        for copy in layout.copies(extent, base) {
            let address = in_staging(staged, copy.from);
            jobs.extend(pieces(Kernel::Scatter, copy, address, (1, 1)));
        }
        for (copy, cast) in layout.casts(extent, base) {
            let bytes = |dtype: Dtype| dtype.bitsize() as u64 / 8;
            let element_bytes = (bytes(cast.from()), bytes(cast.to()));
            let kernel = Kernel::Cast(cast.from(), cast.to());
            jobs.extend(pieces(kernel, copy, in_staging(staged, copy.from), element_bytes));
        }
        jobs.sort_by_key(|&(kernel, _)| kernel);
    }
    if verify {
        let checksum = |(position, range): (usize, Range<u64>)| {
            let source = match (layout.items[position].cast, staged) {
                (Some(_), Some(staged)) => in_staging(staged, range.start),
                _ => base(position) + (range.start - layout.items[position].offset_bytes),
            };
            (Kernel::Crc64, Piece { source, target: 0, length: range.end - range.start })
        };
        jobs.extend(layout.checksummed(extent, Kernel::Crc64.piece_bytes_max()).map(checksum));
    }
    jobs
}

/// The pieces of `copy` from `address`. Its elements have `from_bytes` bytes in the source and
/// `to_bytes` bytes in the target.
fn pieces(
    kernel: Kernel,
    copy: TensorCopy,
    address: u64,
    (from_bytes, to_bytes): (u64, u64),
) -> impl Iterator<Item = (Kernel, Piece)> {
    let step = kernel.piece_bytes_max();
    (0..copy.len_bytes).step_by(step as usize).map(move |start| {
        let piece = Piece {
            source: address + start,
            target: copy.to + start / from_bytes * to_bytes,
            length: step.min(copy.len_bytes - start) / from_bytes,
        };
        (kernel, piece)
    })
}
