//! Loads safetensors checkpoints into host memory or onto NVIDIA GPUs, as fast as the hardware
//! allows and under a hard memory limit.
//!
//! ```no_run
//! use ringload::{Loader, MemoryLimit};
//!
//! # fn main() -> ringload::Result<()> {
//! // All tensors; each stays valid as long as it is kept.
//! let model = Loader::new().load("/models/llama-8b")?;
//! println!("{:?}", model.get("model.norm.weight").map(|norm| norm.shape().to_vec()));
//!
//! // Tensors as they complete, through 2 GiB of memory that is reused when they are dropped.
//! let loader = Loader::new().memory_limit(MemoryLimit::Bytes(2 << 30));
//! for tensor in loader.stream("s3://bucket/llama-8b/")? {
//!     let tensor = tensor?;
//!     println!("{}: {} bytes", tensor.name(), tensor.bytes().len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! | --- | --- |
//! | load all tensors, or stream them | [`Loader::load`], [`Loader::stream`] |
//! | read a list of names, shapes and metadata | [`Loader::open`], [`Checkpoint`] |
//! | load only this rank's part of each tensor | [`Loader::slices`] with [`Slices`] |
//! | load only some tensors | [`Loader::tensors`], [`Loader::names`], [`Loader::filter`] |
//! | read one tensor or a part of it | [`Loader::read_tensor`] with [`Pick`] |
//! | fill byte ranges of your own memory | [`Loader::read_into`] with [`ReadRequest`] |
//! | load onto GPUs | [`Loader::device`] with [`Device`] or [`DeviceMap`] |
//! | cast floats while loading | [`Loader::dtype`], [`cast`] |
//! | keep remote objects on a local disk | [`Loader::cache_dir`], [`CacheAdmin`] |
//! | check files and objects against checksums of their own | [`Loader::verify`] |
//! | write checksums of files and tensors, and check loads against them | [`Loader::sum`], [`Manifest`] |
//! | find NaN and infinity | [`Loader::check_finite`] |
//! | write objects to plain files | [`Loader::download`] |
//! | see what a load did | [`Summary`], [`Timeline`], [`mod@metrics`], events through `tracing` |
//! | set options by environment variables | [`Loader::from_env`], [`options`] |
//!
//! Errors are one type, [`Error`], with an [`ErrorKind`].
//!
//! # How a load works
//!
//! ```text
//! location -> source -> checkpoint (headers, index) -> plan (extents)
//!                                                         |
//!                                  engine (at most one per core) takes the next extent
//!                                                         |
//!       file: O_DIRECT io_uring reads     HTTP: range requests     into the extent's slot of the ring
//!                                                         |
//!             host: tensors are views of the slot, which is free when the last one is dropped
//!             GPU: copies on a stream, an event, and the slot is free for a later extent
//! ```
//!
//! | word | meaning |
//! | --- | --- |
//! | checkpoint | one or more safetensors files (shards), with or without an index |
//! | source | a file, or an object in a store, from which the bytes of a shard are read |
//! | extent | a contiguous byte range of a source that fills one slot |
//! | plan | the ordered list of extents of a load |
//! | ring, slot | the memory that tensors pass through; a page-aligned range of it |
//! | engine | one thread on one core that drives reads |
//! | device transfer | the component that copies full slots to a GPU |
//! | storage | an allocation that tensors are views of; it lives as long as any of them |
//!
//! `docs/design.md` has the rest of the words, the fallback chains and the order of the layers.
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
#[doc = include_str!("../docs/hold.md")]
#[doc = include_str!("../docs/locations.md")]
#[doc = include_str!("../docs/memory-limit.md")]
#[doc = include_str!("../docs/observability.md")]
#[doc = include_str!("../docs/python.md")]
#[doc = include_str!("../docs/runai.md")]
#[doc = include_str!("../docs/rust.md")]
#[doc = include_str!("../docs/safetensors.md")]
#[doc = include_str!("../docs/serving.md")]
#[doc = include_str!("../docs/verification.md")]
struct Pages;
