//! The plan of a load: which bytes to read, in which order, into how much memory.
//!
//! ```text
//! tensors of a shard, by offset:   a  b  c  [ d (large) ]  e        (b is not selected)
//! extents:                        |a|    |c| |    d     | |e|
//! a slot (aligned to blocks):                [  .  d  .   ]   cut into reads of chunk_bytes
//! ```
//!
//! An [`Extent`] is a contiguous byte range of one shard that fills one slot. For the host it holds
//! whole tensors: neighbours are gathered until the extent is large enough, and a large tensor has an
//! extent of its own. Tensors for a GPU only pass through their slots, so their extents end where
//! reads are best aligned, also within tensors. Time and memory are linear in the number of tensors,
//! and an extent takes a few words.
//!
//! [`Slices`] load parts of tensors. A part that is contiguous in its tensor takes the place of the
//! tensor. One that consists of several runs has extents of its own: pieces of the tensor, from which the
//! runs are copied as each is full. For the host they are copied into a slot of the part's size, and the
//! pieces pass through a ring of their own. Short tensors and parts are read together with the gaps between
//! them, and packed (`packing.rs`).
//!
//! [`LoadSizes`] decides how large all of this is.

mod chunk;
mod extent;
mod load_plan;
mod needs;
mod order;
mod packing;
mod parts;
mod runs;
mod select;
mod sizes;
mod slice;
mod slices;
mod tensor_sizes;
mod tp_plan;
mod wanted;
mod yield_order;

pub use chunk::{Chunk, ChunkSize, chunk_ends, even_ends};
pub use extent::Extent;
pub(crate) use extent::{Span, pieces_of};
pub use load_plan::Plan;
pub(crate) use load_plan::destination_among;
pub(crate) use order::not_loaded;
pub(crate) use packing::packed_start;
pub(crate) use parts::{TensorPart, gap_bytes};
pub use runs::Pick;
pub(crate) use runs::{RunRead, Runs};
pub(crate) use select::position;
pub use select::{Selection, TensorFilter};
pub(crate) use sizes::{LoadSizes, ReadOptions, ReadSizes, SlotSizes};
pub use slice::{Slice, SliceRange};
pub use slices::Slices;
pub(crate) use tensor_sizes::TensorSizes;
pub use yield_order::YieldOrder;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod pieces_tests;
