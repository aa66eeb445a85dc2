//! Devices that have their own memory: full slots are copied to them and then return to the ring.
//!
//! Host memory needs no transfer, because the slot already holds the tensors. Each GPU of a load has
//! a `DeviceTransfer`, which accepts full slots from the engines and copies them on its own threads,
//! so that no engine ever waits for the GPU. It passes loaded tensors to a `CompletionSink`.

#[cfg_attr(not(feature = "cuda"), path = "cuda_left_out.rs")]
pub(crate) mod cuda;
mod gpu_info;
mod transfer;

pub use cuda::gpus;
pub use gpu_info::GpuInfo;
pub(crate) use transfer::{CompletionSink, DeviceTransfer};
