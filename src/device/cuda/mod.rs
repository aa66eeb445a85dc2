//! NVIDIA GPUs, through the CUDA driver API.
//!
//! The driver's library is loaded when a GPU is used for the first time, so the same binary runs on
//! machines without one. A [`CudaTransfer`] copies the slots of one load to one GPU. The GPU memory
//! that it allocates belongs to the tensors.
//!
//! # Unsafe code
//!
//! No other module calls the driver's functions. Here they are wrapped in types that release their
//! resource on drop. Two rules make this sound:
//! - Memory that the GPU may still read or write is owned by an
//!   [`InFlightCopy`](in_flight_copy::InFlightCopy) or by the allocations, and is released only
//!   after the copy's event.
//! - Every call that acts on the current context takes an [`Entered`](context::Entered), which
//!   proves that a context is current.
#![allow(unsafe_code)]

mod allocations;
mod answer;
mod completion_tracker;
mod context;
mod copy_stream;
mod driver;
mod driver_error;
mod functions;
mod gds;
mod gpu_info;
mod in_flight_copy;
mod kernels;
mod launch_arguments;
mod layout;
mod memory;
mod stream;
mod transfer;

pub(crate) use gds::{CufileDriver, GdsGpu, GdsTarget, PROBE_BYTES, ProbeSample, RegisteredFile};
pub(crate) use gpu_info::gpu_info;
pub use gpu_info::gpus;
pub(crate) use layout::{Addresses, Layout, LayoutItem};
pub(crate) use memory::PinnedRing;
pub(crate) use transfer::{CudaTransfer, ExtentSource, TransferSpec};
