//! Loads safetensors checkpoints into host memory or onto NVIDIA GPUs, as fast as the hardware
//! allows and under a hard memory limit: from disks, object stores and web servers.
//!
//! # Load all tensors
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("model.safetensors");
//! # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
//! # safetensors::serialize_to_file([("model.norm.weight", norm)], None, &path)?;
//! use ringload::Loader;
//!
//! let model = Loader::new().load(&path)?; // or "s3://bucket/llama-8b/", "hf://openai-community/gpt2", ...
//! let norm = model.get("model.norm.weight").ok_or("the checkpoint has no norm")?;
//! println!("{} {:?}: {:?}", norm.dtype(), norm.shape(), norm.as_slice::<f32>()?);
//! # Ok(())
//! # }
//! ```
//!
//! # Stream tensors under a memory limit
//!
//! Each tensor is yielded when it is complete, and its memory is used again when it is dropped.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("model.safetensors");
//! # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
//! # safetensors::serialize_to_file([("model.norm.weight", norm)], None, &path)?;
//! use ringload::{Loader, MemoryLimit};
//!
//! let loader = Loader::new().memory_limit(MemoryLimit::Bytes(2 << 30));
//! for tensor in loader.stream(&path)? {
//!     let tensor = tensor?;
//!     println!("{}: {} bytes", tensor.name(), tensor.bytes().len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A program that builds a model in an order of its own asks by name ([`Loader::by_name`]), under the same
//! limit.
//!
//! # Load in an async server
//!
//! Any executor can run it. Dropping the future cancels the load, which the server need not wait for.
//!
//! ```no_run
//! use ringload::{Cancellation, Loaded, Loader, Progress};
//!
//! async fn load(progress: &Progress, shutdown: &Cancellation) -> ringload::Result<Loaded> {
//!     // Any task can ask `progress.done_bytes()`, and `shutdown.cancel()` ends the load.
//!     let loader = Loader::new().progress(progress).cancellation(shutdown);
//!     loader.load_async("s3://bucket/llama-8b/").await
//! }
//! ```
//!
//! # Load parts of tensors
//!
//! Only the bytes of the parts are read: here of the rank 1 of 2 under tensor parallelism.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("model.safetensors");
//! # let view = |shape| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &[0; 32]);
//! # let (up, down) = (view(vec![4, 2])?, view(vec![2, 4])?);
//! # safetensors::serialize_to_file([("mlp.up_proj.weight", up), ("mlp.down_proj.weight", down)], None, &path)?;
//! use ringload::{Loader, Slice, Slices};
//!
//! let slices = Slices::default()
//!     .with("*.up_proj.weight", Slice::share(0, 1, 2))? // half of the rows
//!     .with("*.down_proj.weight", Slice::share(1, 1, 2))?; // half of the columns
//! let model = Loader::new().slices(slices).load(&path)?;
//! assert_eq!(model.get("mlp.up_proj.weight").map(|it| it.shape()), Some(&[2, 2][..]));
//! assert_eq!(model.get("mlp.down_proj.weight").map(|it| it.shape()), Some(&[2, 2][..]));
//! # Ok(())
//! # }
//! ```
//!
//! # Load onto a GPU
//!
//! ```no_run
//! use ringload::{Device, Dtype, Loader};
//!
//! # fn main() -> ringload::Result<()> {
//! let model = Loader::new().device(Device::cuda(0)).dtype(Dtype::BF16).load("/models/llama-8b")?;
//! for tensor in &model {
//!     println!("{} at {:#x} of {}", tensor.name(), tensor.address(), tensor.device());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | to | use |
//! | --- | --- |
//! | read a list of names, shapes and metadata | [`Loader::open`], [`Checkpoint`] |
//! | load only some tensors | [`Loader::tensors`], [`Loader::names`], [`Loader::filter`] |
//! | read one tensor or a part of it | [`Loader::read_tensor`] with [`Pick`] |
//! | fill byte ranges of your own memory | [`Loader::read_into`] with [`ReadRequest`] |
//! | cast floats while loading | [`Loader::dtype`], [`cast`] |
//! | keep remote objects on a local disk | [`Loader::cache_dir`], [`CacheAdmin`] |
//! | check files and objects against checksums of their own | [`Loader::verify`] |
//! | write checksums of files and tensors, and check loads against them | [`Loader::sum`], [`Manifest`] |
//! | find NaN and infinity | [`Loader::check_finite`] |
//! | write objects to plain files | [`Loader::download`] |
//! | see what a load does and did | [`Progress`], [`Summary`], [`Timeline`], [`mod@metrics`], events through `tracing` |
//! | set options by environment variables | [`Loader::from_env`], [`options`] |
//!
//! Errors are one type, [`Error`], with an [`ErrorKind`]. `docs/design.md` says how a load works, and has
//! the project's own words.
//!
//! # Unsafe code
//!
//! It is denied for the whole crate, and allowed in `ring` (memory and who may access it),
//! `source::backend` (io_uring operations), `device::cuda` (the driver's functions), `sys`
//! (three system calls), `engine::borrowed`, `load::read_into` and `load::read_request` (memory of the caller),
//! `tensor::dlpack` and `tensor::aligned` (tensors for other frameworks), `tensor::elements` (bytes as
//! numbers), and `capi` (arguments from C).

// What only a feature uses is unused in a build without it.
#![cfg_attr(
    not(all(
        feature = "s3",
        feature = "gcs",
        feature = "azure",
        feature = "hub",
        feature = "cuda"
    )),
    allow(dead_code, unused_imports, unused_variables)
)]

#[cfg_attr(not(feature = "http"), path = "cache_left_out.rs")]
mod cache;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;
pub mod cast;
mod checkpoint;
mod checks;
mod checksum;
mod device;
mod doctor;
mod dtype;
mod engine;
mod error;
#[cfg(test)]
#[cfg(feature = "http")]
#[path = "../tests/support/fault_server.rs"]
mod fault_server;
mod fork_guard;
#[doc(hidden)]
pub mod internals;
mod load;
mod location;
mod manifest;
pub mod metrics;
#[cfg(test)]
#[path = "../tests/support/no_uring.rs"]
mod no_uring;
mod numa;
pub mod options;
mod plan;
#[allow(unsafe_code)]
mod ring;
mod source;
mod sync;
#[allow(unsafe_code)]
mod sys;
mod tensor;
#[cfg(test)]
#[cfg(feature = "http")]
#[allow(dead_code)]
#[path = "../tests/common/certificates.rs"]
mod test_certificates;
#[cfg(test)]
mod test_files;
#[cfg(test)]
mod test_fuzz;
#[cfg(test)]
#[cfg(feature = "http")]
mod test_server;
pub mod timeline;

#[cfg(feature = "http")]
pub use cache::{CacheAdmin, CacheEntry, Checked, Pruned};
pub use checkpoint::{Checkpoint, Shard, TensorInfo};
pub use device::{GpuInfo, gpus};
pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Result};
pub use load::{
    AsyncCall, AsyncTensorStream, Listed, Loaded, Loader, LoaderOption, NamedTensors, OptionGroup,
    OptionKind, OwnedReadRequest, PlannedTensor, ReadRequest, Summary, TensorStream,
};
#[cfg(feature = "http")]
pub use load::{Download, Downloaded};
pub use location::{IntoLocations, Location, LocationText, ObjectUri, Scheme};
pub use manifest::Manifest;
pub use options::{
    Allocation, CacheSize, CacheValidate, Device, DeviceMap, MemoryLimit, Order, PinBy, ReadPath,
    RetryLimits, S3Credentials,
};
pub use plan::{Pick, Slice, SliceRange, Slices};
pub use source::{Cancellation, Downgrade, Progress, Verified};
pub use tensor::{Element, Storage, Tensor, dlpack};
pub use timeline::Timeline;

/// The Rust examples of README.md and docs/, which are doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/benchmarks.md")]
#[doc = include_str!("../docs/c.md")]
#[doc = include_str!("../docs/cache.md")]
#[doc = include_str!("../docs/candle.md")]
#[doc = include_str!("../docs/command-line.md")]
#[doc = include_str!("../docs/design.md")]
#[doc = include_str!("../docs/gpus.md")]
#[doc = include_str!("../docs/clusters.md")]
#[doc = include_str!("../docs/hold.md")]
#[doc = include_str!("../docs/locations.md")]
#[doc = include_str!("../docs/memory-limit.md")]
#[doc = include_str!("../docs/observability.md")]
#[doc = include_str!("../docs/python.md")]
#[doc = include_str!("../docs/ray.md")]
#[doc = include_str!("../docs/runai.md")]
#[doc = include_str!("../docs/rust.md")]
#[doc = include_str!("../docs/safetensors.md")]
#[doc = include_str!("../docs/serving.md")]
#[doc = include_str!("../docs/verification.md")]
struct Pages;
