//! Tensors: named, typed, shaped views that keep their storage alive.

#[allow(unsafe_code)]
mod aligned;
mod buffer;
#[allow(unsafe_code)]
pub mod dlpack;
#[allow(unsafe_code)]
mod elements;
mod loaded;
mod storage;
mod view;

pub(crate) use buffer::TensorBuffer;
pub use elements::Element;
pub(crate) use loaded::{LoadedTensors, Offsets};
pub(crate) use storage::GpuMemory;
pub use storage::Storage;
pub use view::Tensor;
