//! The plan of a load: which bytes to read, in which order, into how much memory.
//!
//! ```text
//! tensors of a shard, by offset:   a  b  c  [ d (large) ]  e        (b not selected)
//! extents:                        |a|    |c| |    d     | |e|
//! a slot (aligned to blocks):                [  .  d  .   ]   cut into reads of chunk_bytes
//! ```
//!
//! An [`Extent`] is a contiguous byte range of one shard that holds whole tensors and fills one
//! slot: neighbours are gathered until an extent is large enough, a large tensor has one of its
//! own. Everything is linear in the number of tensors, and an extent costs a few words.

mod chunk;
mod extent;

pub use chunk::{Chunk, chunk_ends};
pub use extent::Extent;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::options::MemoryLimit;
use crate::ring::{Budget, PAGE_BYTES};
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::sync::Arc;

/// What a load will do. See the [module's head](self).
#[derive(Debug)]
pub struct Plan {
    checkpoint: Arc<Checkpoint>,
    /// Indices into the checkpoint's tensors; extents name ranges of this.
    tensors: Vec<u32>,
    extents: Vec<Extent>,
    budget: Budget,
    block_bytes: usize,
    slots_bytes: u64,
    ring_bytes: u64,
    total_bytes: u64,
}

impl Plan {
    /// Plans a load of the tensors whose names match one of `globs` (all, if there is none).
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] when the limit is below the largest tensor,
    /// [`ErrorKind::InvalidInput`] for a glob that does not parse, [`ErrorKind::NotFound`] when no
    /// tensor matches.
    pub fn new(checkpoint: Arc<Checkpoint>, limit: MemoryLimit, globs: &[String]) -> Result<Self> {
        let tensors = select(&checkpoint, globs)?;
        let sizes = || tensors.iter().map(|&i| checkpoint.tensors()[i as usize].len_bytes());
        let total_bytes: u64 = sizes().sum();
        let budget = Budget::new(limit, sizes().max().unwrap_or(0), total_bytes)?;
        let extents = extent::gather(&checkpoint, &tensors, budget.extent_bytes);
        let block_bytes = largest_block_bytes(&checkpoint);
        let slots = || extents.iter().map(|extent| extent.slot_bytes(&checkpoint, block_bytes));
        let slots_bytes = slots().sum();
        let ring_bytes = budget.ring_bytes(slots_bytes, slots().max().unwrap_or(0));
        Ok(Self {
            tensors,
            extents,
            budget,
            block_bytes,
            slots_bytes,
            ring_bytes,
            total_bytes,
            checkpoint,
        })
    }

    /// The checkpoint it was made for.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The extents, in the order of the checkpoint.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The tensors of one extent, as indices into [`Checkpoint::tensors`].
    pub fn tensors_of(&self, extent: &Extent) -> &[u32] {
        &self.tensors[extent.tensors()]
    }

    /// How many tensors are selected.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The sum of the selected tensors' bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The memory limit in force, in bytes.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.budget.limit_bytes
    }

    /// What slots are aligned to: the largest block of the sources, at least a page.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// How much memory all slots together take: the tensors, in whole blocks.
    pub fn slots_bytes(&self) -> u64 {
        self.slots_bytes
    }

    /// How large the ring has to be, in bytes.
    pub fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }
}

fn largest_block_bytes(checkpoint: &Checkpoint) -> usize {
    let blocks = checkpoint.shards().iter().map(|shard| shard.source().block_bytes());
    blocks.fold(PAGE_BYTES, usize::max)
}

fn select(checkpoint: &Checkpoint, globs: &[String]) -> Result<Vec<u32>> {
    let count = u32::try_from(checkpoint.tensors().len()).map_err(|_| {
        Error::new(ErrorKind::Unsupported, "a checkpoint may hold at most 2^32 tensors")
    })?;
    if globs.is_empty() {
        return Ok((0..count).collect());
    }
    let set = compile(globs)?;
    let matches = |&i: &u32| set.is_match(checkpoint.tensors()[i as usize].name());
    let selected: Vec<u32> = (0..count).filter(matches).collect();
    if selected.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("no tensor matches {}; `ringload inspect` lists the names", globs.join(" or ")),
        ));
    }
    Ok(selected)
}

fn compile(globs: &[String]) -> Result<GlobSet> {
    let refuse = |glob: &str, error| {
        Error::new(ErrorKind::InvalidInput, format!("{glob:?} is not a valid glob"))
            .with_source(error)
    };
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(Glob::new(glob).map_err(|error| refuse(glob, error))?);
    }
    set.build().map_err(|error| refuse(&globs.join(" "), error))
}

#[cfg(test)]
mod tests;
