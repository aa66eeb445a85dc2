//! The ring: the memory that reads write to, whose size the memory limit bounds.
//!
//! A ring is one huge-page-aligned mapping that is allocated as *slots*: page-aligned ranges, one for
//! each extent, as large as the extent needs. For loads to host memory the slot *is* the tensors'
//! final memory: reads fill it, the tensors are views of it, and when the last of them is dropped the
//! range is free for a later extent. So the capacity bounds the memory of a load, however many
//! tensors the caller keeps. Without a memory limit the capacity is that of the whole load, so that
//! no read ever waits for memory.
//!
//! ```text
//!            allocate                 complete (all windows)          last tensor dropped
//!   free ----------------> filling --------------------------> full ----------------------> free
//! ```
//!
//! Allocation is first-fit from the lowest address: a load whose consumer drops tensors as they
//! arrive stays in the same few pages, which are faulted in already. Free neighbours are merged. When
//! the load needs no more slots the ring is [closed](Ring::close), and from then on freed ranges are
//! returned to the kernel at once.
//!
//! # Slices and foreign writers
//!
//! A Python program may write to its tensors, through pointers that DLPack hands out, at any moment;
//! Rust code must not have a `&[u8]` of bytes that change. Therefore:
//!
//! - Slices cover exactly the bytes that were asked for ([`FullSlot::bytes`] takes a range), never a
//!   whole slot in which another tensor may be written to.
//! - Only [`FullSlot::lend`] gives a pointer to write through, and only full slots can be lent.
//!   Before that, all windows and their slices are gone.
//! - The cache's writer reads a slot behind the load, by way of a [`Part`]. A part gives a slice only
//!   while nothing of the ring is lent ([`Part::borrow`]), and the first `lend` waits until all
//!   borrowed parts are returned. From then on parts can only be copied, by atomic loads. The writer
//!   checks its copy against checksums that were computed before the slot was full
//!   ([`Window::shared_bytes`]), and writes that copy: the bytes that are checked are the bytes that
//!   are written.
//! - The slices of a tensor that is exported as writable are ruled out by the contract of
//!   [`Tensor::export_writable`](crate::Tensor::export_writable), an unsafe function. The safe
//!   [`Tensor::export`](crate::Tensor::export) marks what it exports as read-only.
//!
//! Loads whose tensors are never lent pay one uncontended lock for each part that is cached.
//!
//! In debug builds a released slot is filled with a poison byte. The process panics if the poison has
//! changed when the memory is allocated again: a write to a released slot is noticed.

mod allocator;
mod lending;
mod memory;
mod slot;

use crate::sync;
pub use allocator::{Ring, RingUsage};
pub(crate) use lending::copy_lent;
pub(crate) use memory::HUGE_PAGE_BYTES;
pub use memory::{Mapping, PAGE_BYTES};
pub use slot::{FullSlot, Part, Slot, Window};

#[cfg(test)]
mod tests;
