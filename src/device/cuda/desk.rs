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
//! With `--verify` the card sums up what arrived, and the landing thread compares that with the sums
//! of the slot. What is cast is summed up before it is cast.

use super::context::{Entered, log};
use super::kernels::{Kernel, Kernels, Piece};
use super::landing::Landing;
use super::layout::{Copy, Layout};
use super::memory::DeviceMemory;
use super::sheet::{Pool, PooledSheet};
use super::stream::{Stream, copy_in_now, copy_out_now};
use crate::error::Result;
use crate::plan::Extent;
use crate::ring::FullSlot;
use crate::tensor::CardMemory;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// No sheet takes more pieces than this: 2 MiB.
const SHEET_PIECES_MAX: usize = 1 << 16;

/// What the slots of a load need of a card besides their places.
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
    /// For these extents of one card.
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

    /// How much memory of the card `desks` desks take, in bytes.
    pub fn card_bytes(&self, desks: usize) -> u64 {
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

/// One stream, and its memory on the card.
pub(super) struct Desk {
    stream: Arc<Stream>,
    staging: Option<Arc<DeviceMemory>>,
    list: Option<Arc<DeviceMemory>>,
}

/// A landing, and what is to be seen of it.
pub(super) struct Landed {
    pub landing: Landing,
    /// How many pieces are on its sheet.
    pub piece_count: usize,
    /// The bytes of the source that the card has summed up: the last pieces of the sheet.
    pub summed: Vec<Range<u64>>,
}

/// A piece of work, and which bytes of the source it works on.
#[derive(Debug, Clone, Copy)]
struct Job {
    piece: Piece,
    source: (u64, u64),
}

impl Desk {
    /// A desk for what `needs` says.
    ///
    /// # Errors
    /// When the card has no room.
    pub fn new(entered: &Entered<'_>, needs: &Needs) -> Result<Self> {
        let allocate = |bytes: u64| {
            (bytes > 0).then(|| DeviceMemory::new(entered, bytes as usize)).transpose()
        };
        let list_bytes = needs.card_bytes(1) - needs.staging_bytes;
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
        let jobs: Vec<(Kernel, Job)> = work
            .into_iter()
            .flat_map(|(kernel, jobs)| jobs.into_iter().map(move |job| (kernel, job)))
            .collect();
        let (Some(sheets), Some(list)) = (&office.sheets, &self.list) else {
            landing.mark(entered)?;
            return Ok(vec![Landed { landing, piece_count: 0, summed: Vec::new() }]);
        };
        for batch in jobs.chunks(sheets.piece_count()) {
            let next = landing.another();
            let full = std::mem::replace(&mut landing, next);
            landed.push(self.run(entered, office, full, sheets.take(), list.address(), batch)?);
        }
        landing.mark(entered)?;
        landed.push(Landed { landing, piece_count: 0, summed: Vec::new() });
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
        batch: &[(Kernel, Job)],
    ) -> Result<Landed> {
        let sheet = landing.keep(sheet);
        let bytes = sheet.write(batch.iter().map(|(_, job)| job.piece));
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
        let summed: Vec<Range<u64>> = batch
            .iter()
            .filter(|&&(kernel, _)| kernel == Kernel::Crc64)
            .map(|(_, job)| job.source.0..job.source.1)
            .collect();
        if !summed.is_empty() {
            self.copy_out(entered, office, sheet.results_mut(batch.len()), results)?;
        }
        landing.mark(entered)?;
        Ok(Landed { landing, piece_count: batch.len(), summed })
    }

    /// Brings bytes of a slot or a sheet to the card.
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

    /// Brings results from the card.
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
) -> BTreeMap<Kernel, Vec<Job>> {
    let mut work: BTreeMap<Kernel, Vec<Job>> = BTreeMap::new();
    let mut add =
        |kernel: Kernel, copy: Copy, address: u64, element_bytes: u64, target_bytes: u64| {
            let jobs = work.entry(kernel).or_default();
            let step = kernel.piece_bytes_max();
            for start in (0..copy.len_bytes).step_by(step as usize) {
                let len = step.min(copy.len_bytes - start);
                let piece = Piece {
                    source: address + start,
                    target: copy.to + start / element_bytes * target_bytes,
                    length: len / element_bytes,
                };
                jobs.push(Job { piece, source: (copy.from + start, copy.from + start + len) });
            }
        };
    let in_staging = |copy: &Copy| staged.map(|at| at + (copy.from - extent.offset_bytes()));
    for copy in layout.copies(extent, base) {
        if let Some(address) = in_staging(&copy) {
            add(Kernel::Scatter, copy, address, 1, 1);
        }
        if verify {
            add(Kernel::Crc64, copy, copy.to, 1, 1);
        }
    }
    for part in layout.casts(extent, base) {
        let Some(address) = in_staging(&part.copy) else { continue };
        let (from, to) = (part.cast.from(), part.cast.to());
        let bytes = |dtype: safetensors::Dtype| dtype.bitsize() as u64 / 8;
        add(Kernel::Cast(from, to), part.copy, address, bytes(from), bytes(to));
        if verify {
            add(Kernel::Crc64, part.copy, address, 1, 1);
        }
    }
    work
}
