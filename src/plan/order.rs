//! The order in which a load yields its tensors, where its caller names it, and the order of its reads
//! that suits it.
//!
//! ```text
//! all tensors fit the ring      extents as always, read in the order of their first tensors;
//!                               tensors that come early wait in the ring
//! they do not                   extents of tensors that are yielded one after the other, read in that
//!                               order, so that nothing in the ring waits for what comes later
//! ```
//!
//! Under a limit, tensors are gathered into an extent if they follow each other in the order and, taken
//! together, in the file: the tensors of a layer are one read, also where they are yielded in another
//! order than they are stored in.
//!
//! Two loads are read in the order of the file nevertheless: one that computes checksums of whole files,
//! which are computed from front to back, and one to GPUs, whose layout follows the file. Under a limit
//! that does not hold all tensors they cannot yield another order, which is an error of the plan.

use super::extent::Span;
use super::load_plan::Plan;
use super::needs::Needs;
use super::parts::TensorPart;
use super::select::position;
use super::wanted::Wanted;
use super::yield_order::YieldOrder;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result, Size};
use std::sync::Arc;

/// How many tensors are looked at to find those that are one range of a file. Layers have fewer.
const GATHERED_MAX: usize = 256;

impl YieldOrder {
    /// The positions in `tensors`, which ascend, in the order in which the tensors are yielded.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a name of no tensor, or of one that is not loaded;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a name that is there twice.
    fn positions(&self, checkpoint: &Checkpoint, tensors: &[u32]) -> Result<Vec<u32>> {
        let mut is_listed = vec![false; tensors.len()];
        let mut yielded = Vec::with_capacity(tensors.len());
        for name in &*self.names {
            let index = position(checkpoint, name)? as u32;
            let at = tensors.binary_search(&index).map_err(|_| not_loaded(name))?;
            if std::mem::replace(&mut is_listed[at], true) {
                let sentence = format!("the order names the tensor {name:?} twice; name it once");
                return Err(Error::new(ErrorKind::InvalidInput, sentence));
            }
            yielded.push(at as u32);
        }
        let rest = (0..tensors.len() as u32).filter(|&at| !is_listed[at as usize]);
        yielded.extend(rest);
        Ok(yielded)
    }
}

/// The error for a tensor that the selection leaves out.
pub(crate) fn not_loaded(name: &str) -> Error {
    let sentence = format!(
        "the tensor {name:?} is not among those that the loader selects; select it, or do not ask for \
         it"
    );
    Error::new(ErrorKind::NotFound, sentence)
}

impl Plan {
    /// This plan, made for the tensors in the order of the checkpoint, so that they can be yielded in
    /// `order`.
    ///
    /// # Errors
    /// Those of the names, and [`MemoryLimit`](ErrorKind::MemoryLimit) if the limit is too small for
    /// the order.
    pub(super) fn in_order(mut self, order: &YieldOrder) -> Result<Self> {
        let yielded = order.positions(&self.checkpoint, &self.tensors)?;
        let is_tight = self.sizes.host_ring_bytes < self.sizes.host_slots_bytes;
        let reads_in_file_order = order.reads_in_file_order || self.has_gpus();
        let misplaced = (0..).zip(&yielded).find(|&(at, &position)| at != position);
        match misplaced {
            None => {}
            Some((_, &position)) if is_tight && reads_in_file_order => {
                return Err(self.too_small_for_order(position));
            }
            Some(_) if is_tight => return Ok(self.gathered_in_order(&yielded)),
            Some(_) if reads_in_file_order => {}
            Some(_) => {
                let mut ranks = vec![0; yielded.len()];
                (0_u32..).zip(&yielded).for_each(|(rank, &at)| ranks[at as usize] = rank);
                let mut extents = self.extents.to_vec();
                extents.sort_by_key(|extent| ranks[extent.positions()].iter().min().copied());
                self.extents = extents.into();
            }
        }
        self.yielded = Some(yielded.into());
        Ok(self)
    }

    /// This plan for host memory, whose extents hold tensors that are yielded one after the other.
    fn gathered_in_order(mut self, in_order: &[u32]) -> Self {
        // The present positions, in the order of the new ones.
        let mut moved = Vec::with_capacity(in_order.len());
        let mut yielded = Vec::with_capacity(in_order.len());
        let mut rest = in_order;
        while !rest.is_empty() {
            let (group, later) = rest.split_at(self.first_range(rest));
            let start = moved.len();
            moved.extend_from_slice(group);
            moved[start..].sort_unstable();
            let at = |position: &u32| moved[start..].binary_search(position).unwrap_or(0);
            yielded.extend(group.iter().map(|position| (start + at(position)) as u32));
            rest = later;
        }
        let tensors: Vec<u32> = moved.iter().map(|&at| self.tensors[at as usize]).collect();
        let parts: Vec<_> = match self.parts.is_empty() {
            true => Vec::new(),
            false => moved.iter().map(|&at| self.parts[at as usize].clone()).collect(),
        };
        let destinations = vec![0; tensors.len()];
        let wanted = Wanted {
            checkpoint: &self.checkpoint,
            tensors: &tensors,
            parts: &parts,
            destinations: &destinations,
            dtype: self.dtype,
        };
        let needs = Needs { wanted, devices: &self.devices };
        let (extents, sizes) = needs.extents(self.sizes);
        (self.extents, self.sizes) = (extents.into(), sizes);
        (self.tensors, self.parts) = (tensors, parts);
        self.yielded = Some(yielded.into());
        self
    }

    /// How many of the first `positions` make one extent: those whose tensors are a range of a file.
    fn first_range(&self, positions: &[u32]) -> usize {
        let info = |at: usize| &self.checkpoint.tensors()[self.tensors[at] as usize];
        let first = positions[0] as usize;
        let (mut start, mut end) = range_of(&self.span(first));
        let (mut whole, mut bytes) = (1, 0);
        for (count, &at) in (1..).zip(positions.iter().take(GATHERED_MAX)) {
            let (at, tensor) = (at as usize, info(at as usize));
            let span = self.span(at);
            bytes += span.len_bytes;
            let cast_bytes = self.cast_of(tensor).map_or(0, |cast| cast.target_bytes(bytes));
            let fits = bytes + cast_bytes <= self.sizes.extent_bytes;
            let has_gaps = self.part(at).is_some_and(TensorPart::has_gaps);
            let is_alike =
                (span.shard, tensor.dtype()) == (info(first).shard(), info(first).dtype());
            if has_gaps || count > 1 && !(fits && is_alike) {
                break;
            }
            let next = range_of(&span);
            (start, end) = (start.min(next.0), end.max(next.1));
            if end.checked_sub(start) == Some(bytes) {
                whole = count;
            }
        }
        whole
    }

    fn too_small_for_order(&self, position: u32) -> Error {
        let name = self.checkpoint.tensors()[self.tensors[position as usize] as usize].name();
        let why = match self.has_gpus() {
            true => "a load to GPUs reads files from front to back",
            false => "checksums of whole files are computed from front to back",
        };
        // Of a limit for host memory and GPUs, the host has three quarters.
        let needed = match self.has_gpus() {
            true => self.sizes.host_slots_bytes.div_ceil(3) * 4,
            false => self.sizes.host_slots_bytes,
        };
        let sentence = format!(
            "the tensor {name:?} cannot be yielded in the order that was asked for: {why}, and the \
             memory limit of {} does not hold the tensors before it; set a limit of at least {}, or \
             another order",
            Size(self.sizes.limit_bytes.unwrap_or(0)),
            Size(needed),
        );
        Error::new(ErrorKind::MemoryLimit, sentence)
    }

    /// The positions in [`tensors`](Self::tensors) in the order in which they are to be yielded; `None`
    /// for any order.
    pub fn yielded(&self) -> Option<&Arc<[u32]>> {
        self.yielded.as_ref()
    }

    /// The bytes of the ring that are needed at once until the tensor at `position` is loaded, if all
    /// tensors that come before it and for which `is_kept` are kept.
    pub(crate) fn bytes_until(&self, position: usize, is_kept: impl Fn(u32) -> bool) -> u64 {
        let block_bytes = self.sizes.block_bytes;
        let (mut bytes, mut last_gathered) = (0, None);
        for extent in &*self.extents {
            let first = extent.positions().start;
            let is_last = extent.positions().contains(&position);
            if is_last || self.tensors_of(extent).iter().any(|&index| is_kept(index)) {
                if !extent.is_gathered() {
                    bytes += extent.slot_bytes(&self.checkpoint, block_bytes as usize);
                } else if last_gathered.replace(first) != Some(first) {
                    let info = &self.checkpoint.tensors()[self.tensors[first] as usize];
                    let stored = self.span(first).len_bytes;
                    let cast = self.cast_of(info).map_or(stored, |cast| cast.target_bytes(stored));
                    bytes += cast.next_multiple_of(block_bytes);
                }
            }
            if is_last {
                break;
            }
        }
        bytes
    }
}

/// Where the bytes of a tensor begin and end in its file. A tensor without bytes has its place nowhere: it
/// begins after all others, and ends before them.
fn range_of(span: &Span) -> (u64, u64) {
    match span.len_bytes {
        0 => (u64::MAX, 0),
        bytes => (span.offset_bytes, span.offset_bytes + bytes),
    }
}
