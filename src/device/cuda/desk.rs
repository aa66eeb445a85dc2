//! How a slot is brought into place: the copies and kernels of one stream.
//!
//! ```text
//! few copies:  slot --copy--> place ...                            [--crc64 over the places]
//! staged:      slot --copy--> staging --scatter, cast--> places    [--crc64 over places and staging]
//! ```
//!
//! A slot is staged where something in it is cast, or where its tensors go to so many places that a
//! kernel moves them faster than single copies would. There is one staging buffer a stream: work of
//! a stream is done in order, so the next slot waits by itself until the last one was dealt with.
//!
//! With `--verify` the GPU sums up what arrived, and the landing thread compares that with the sums
//! that the engine made of the slot. What is cast is summed up before it is cast.

use super::context::{Entered, log};
use super::kernels::{Kernel, Kernels, Piece};
use super::landing::Landing;
use super::layout::{CastPart, Copy, Layout};
use super::memory::DeviceMemory;
use super::sheet::{Pool, PooledSheet};
use super::stream::{Stream, copy_in_now, copy_out_now};
use crate::error::Result;
use crate::plan::Extent;
use crate::ring::FullSlot;
use crate::tensor::GpuMemory;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// No sheet takes more pieces than this: 2 MiB.
const SHEET_PIECES_MAX: usize = 1 << 16;

/// What the slots of a load need of a GPU besides their places.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The longest extent that is staged; 0 if none is.
    pub staging_bytes: u64,
    /// The most pieces of an extent, at most what a sheet takes.
    pub piece_count: usize,
    /// The kernels that are launched.
    pub kernels: BTreeSet<Kernel>,
}

impl Needs {
    /// For these extents of one GPU.
    pub fn new<'a>(
        layout: &Layout,
        extents: impl Iterator<Item = &'a Extent>,
        verify: bool,
    ) -> Self {
        let mut needs = Self::default();
        for extent in extents {
            let staging = layout.is_staged(extent).then_some(0);
            if staging.is_some() {
                needs.staging_bytes = needs.staging_bytes.max(extent.len_bytes());
            }
            let work = pieces(layout, extent, |_| 0, staging, verify);
            needs.piece_count = needs.piece_count.max(work.values().map(Vec::len).sum());
            needs.kernels.extend(work.into_keys());
        }
        needs.piece_count = needs.piece_count.min(SHEET_PIECES_MAX);
        needs
    }

    /// How much memory of the GPU `desks` desks take, in bytes.
    pub fn device_bytes(&self, desks: usize) -> u64 {
        let list = if self.kernels.is_empty() { 0 } else { Pool::bytes(self.piece_count) as u64 };
        desks as u64 * (self.staging_bytes + list)
    }
}

/// What all desks of a load share.
pub(super) struct Office {
    pub kernels: Kernels,
    /// `None` where no kernel is needed.
    pub sheets: Option<Arc<Pool>>,
    pub verify: bool,
    /// Whether slots and sheets are registered with CUDA.
    pub pinned: bool,
}

/// One stream, and its memory on the GPU.
pub(super) struct Desk {
    stream: Arc<Stream>,
    staging: Option<Arc<DeviceMemory>>,
    list: Option<Arc<DeviceMemory>>,
}

/// A landing, and what is on its sheet.
pub(super) struct Landed {
    pub landing: Landing,
    /// How many pieces are on its sheet.
    pub piece_count: usize,
    /// How many of them, the last ones, have been summed up.
    pub sum_count: usize,
}

impl Desk {
    /// A desk for what `needs` says.
    ///
    /// # Errors
    /// When the GPU has no room.
    pub fn new(entered: &Entered<'_>, needs: &Needs) -> Result<Self> {
        let allocate = |bytes: u64| {
            (bytes > 0).then(|| DeviceMemory::new(entered, bytes as usize)).transpose()
        };
        let list_bytes = needs.device_bytes(1) - needs.staging_bytes;
        Ok(Self {
            stream: Stream::new(entered)?,
            staging: allocate(needs.staging_bytes)?,
            list: allocate(list_bytes)?,
        })
    }

    /// Queues everything that brings `extent`, of which `slot` holds the source's bytes from
    /// `slot_offset`, into place. `base` gives the address where the item at a position begins.
    ///
    /// # Errors
    /// What the driver answers.
    pub fn bring(
        &self,
        entered: &Entered<'_>,
        office: &Office,
        layout: &Layout,
        extent: &Extent,
        (slot, slot_offset): (FullSlot, u64),
        base: impl Fn(usize) -> u64 + std::marker::Copy,
    ) -> Result<Vec<Landed>> {
        let mut landing = Landing::new(entered.context(), &self.stream, slot);
        let staging = self.staging.as_ref().filter(|_| layout.is_staged(extent));
        let staged = staging.map(|memory| memory.address());
        let copies = match staged {
            Some(to) => {
                vec![Copy { from: extent.offset_bytes(), to, len_bytes: extent.len_bytes() }]
            }
            None => layout.copies(extent, base),
        };
        for copy in copies {
            let from = &landing.bytes()[(copy.from - slot_offset) as usize..];
            self.copy_in(entered, office, copy.to, &from[..copy.len_bytes as usize])?;
        }
        let mut landed = Vec::new();
        let work = pieces(layout, extent, base, staged, office.verify);
        let jobs: Vec<(Kernel, Piece)> = work
            .into_iter()
            .flat_map(|(kernel, pieces)| pieces.into_iter().map(move |piece| (kernel, piece)))
            .collect();
        let (Some(sheets), Some(list)) = (&office.sheets, &self.list) else {
            landing.mark(entered)?;
            return Ok(vec![Landed { landing, piece_count: 0, sum_count: 0 }]);
        };
        for batch in jobs.chunks(sheets.piece_count()) {
            let next = landing.another();
            let full = std::mem::replace(&mut landing, next);
            landed.push(self.run(entered, office, full, sheets.take(), list.address(), batch)?);
        }
        landing.mark(entered)?;
        landed.push(Landed { landing, piece_count: 0, sum_count: 0 });
        Ok(landed)
    }

    /// Queues the kernels of one sheet.
    fn run(
        &self,
        entered: &Entered<'_>,
        office: &Office,
        mut landing: Landing,
        sheet: PooledSheet,
        list: u64,
        batch: &[(Kernel, Piece)],
    ) -> Result<Landed> {
        let sheet = landing.keep(sheet);
        let bytes = sheet.write(batch.iter().map(|&(_, piece)| piece));
        self.copy_in(entered, office, list, bytes)?;
        let results = list + PooledSheet::results_offset(batch.len()) as u64;
        let mut start = 0;
        for run in batch.chunk_by(|(left, _), (right, _)| left == right) {
            let pieces = list + (start * size_of::<Piece>()) as u64;
            let results = results + (start * size_of::<u64>()) as u64;
            let kernel = run[0].0;
            // SAFETY: the list is this desk's own, and what is in it was written before in this
            // stream. Sources are the staging buffer or the places, which were; targets belong to
            // these parts of these tensors alone. All are kept until the landing is done: by the
            // desk, by the holding, or by the caller who lends them.
            unsafe {
                office.kernels.launch(
                    entered,
                    &self.stream,
                    kernel,
                    pieces,
                    run.len() as u32,
                    results,
                )?;
            }
            start += run.len();
        }
        let sum_count = batch.iter().filter(|&&(kernel, _)| kernel == Kernel::Crc64).count();
        if sum_count > 0 {
            self.copy_out(entered, office, sheet.results_mut(batch.len()), results)?;
        }
        landing.mark(entered)?;
        Ok(Landed { landing, piece_count: batch.len(), sum_count })
    }

    /// Brings bytes of a slot or a sheet to the GPU.
    fn copy_in(&self, entered: &Entered<'_>, office: &Office, to: u64, from: &[u8]) -> Result<()> {
        if office.pinned {
            // SAFETY: a landing keeps slot and sheet, unchanged, until the stream has done this. The
            // target is the desk's own, where work of this stream alone follows upon another; or a
            // place that belongs to this part of this tensor alone and is kept until it is handed out.
            return unsafe { self.stream.copy_in(entered, to, from) };
        }
        self.stream.wait(entered)?; // the target may be in use by what was queued before
        // SAFETY: as above, and nothing is queued.
        unsafe { copy_in_now(entered, to, from) }
    }

    /// Brings results from the GPU.
    fn copy_out(
        &self,
        entered: &Entered<'_>,
        office: &Office,
        to: &mut [u8],
        from: u64,
    ) -> Result<()> {
        if office.pinned {
            // SAFETY: the landing keeps the sheet, untouched, until the stream has done this; the
            // source is the desk's own.
            return unsafe { self.stream.copy_out(entered, to, from) };
        }
        self.stream.wait(entered)?;
        // SAFETY: the source is the desk's own, and nothing is queued.
        unsafe { copy_out_now(entered, to, from) }
    }
}

impl Drop for Desk {
    /// Buffers go when nothing in the stream uses them any more.
    fn drop(&mut self) {
        let context = self.stream.context();
        log(context.enter().and_then(|entered| self.stream.wait(&entered)));
    }
}

/// What kernels have to do for `extent`, by kernel. `staged` is the address of the staged extent,
/// where it is staged.
fn pieces(
    layout: &Layout,
    extent: &Extent,
    base: impl Fn(usize) -> u64 + std::marker::Copy,
    staged: Option<u64>,
    verify: bool,
) -> BTreeMap<Kernel, Vec<Piece>> {
    let mut work = BTreeMap::new();
    let in_staging = |staged: u64, from: u64| staged + (from - extent.offset_bytes());
    if let Some(staged) = staged {
        for copy in layout.copies(extent, base) {
            let address = in_staging(staged, copy.from);
            add(&mut work, Kernel::Scatter, copy, address, (1, 1));
        }
        for CastPart { copy, cast } in layout.casts(extent, base) {
            let bytes = |dtype: safetensors::Dtype| dtype.bitsize() as u64 / 8;
            let element_bytes = (bytes(cast.from()), bytes(cast.to()));
            let address = in_staging(staged, copy.from);
            add(&mut work, Kernel::Cast(cast.from(), cast.to()), copy, address, element_bytes);
        }
    }
    if verify {
        let sum = |(position, range): (usize, Range<u64>)| {
            let source = match (layout.item(position).cast, staged) {
                (Some(_), Some(staged)) => in_staging(staged, range.start),
                _ => layout.place_of(position, range.start, base(position)),
            };
            Piece { source, target: 0, length: range.end - range.start }
        };
        let sums = layout.summed(extent, Kernel::Crc64.piece_bytes_max()).map(sum);
        work.insert(Kernel::Crc64, sums.collect());
    }
    work
}

/// Adds `copy` from `address`, cut into pieces; its elements have so many bytes there and here.
fn add(
    work: &mut BTreeMap<Kernel, Vec<Piece>>,
    kernel: Kernel,
    copy: Copy,
    address: u64,
    (from_bytes, to_bytes): (u64, u64),
) {
    let step = kernel.piece_bytes_max();
    let piece = |start: u64| Piece {
        source: address + start,
        target: copy.to + start / from_bytes * to_bytes,
        length: step.min(copy.len_bytes - start) / from_bytes,
    };
    let pieces = (0..copy.len_bytes).step_by(step as usize).map(piece);
    work.entry(kernel).or_default().extend(pieces);
}
