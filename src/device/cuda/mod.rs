//! NVIDIA GPUs, by the CUDA driver API.
//!
//! The driver's library is loaded when the first GPU is asked for: the same binary runs where there
//! is none. A [`Gpu`] carries the slots of one load to one GPU; the memory that it puts tensors
//! into is theirs from then on.
//!
//! # Unsafe code
//!
//! The driver's functions are called here and nowhere else, behind types whose drop gives back what
//! was taken. Two rules make that sound: what the GPU may still read or write is owned by a
//! [`Landing`](landing::Landing) or the allocations behind it and let go only after its event; and
//! every call that acts on "the current context" takes the proof that one is
//! ([`Entered`](context::Entered)).
#![allow(unsafe_code)]

mod arrivals;
mod context;
mod desk;
mod driver;
mod failure;
mod gds;
mod holding;
mod intake;
mod kernels;
mod landing;
mod layout;
mod memory;
mod room;
mod sheet;
mod stream;
mod transfer;

pub(crate) use context::gpu_info;
pub use context::{GpuInfo, gpus};
pub(crate) use gds::{Driver, GdsGpu, PROBE_BYTES, RegisteredFile, Sample, Target};
pub(crate) use layout::{Addresses, Item, Layout};
pub(crate) use memory::PinnedRing;
pub(crate) use transfer::{CudaTransfer, Origin, TransferSpec};
