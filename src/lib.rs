//! Loads safetensors checkpoints into memory as fast as the hardware allows, under a hard memory
//! cap.
//!
//! ```text
//! location -> source -> checkpoint (headers, index) -> plan (extents)
//!                                                         |
//!                                  engine (one per core) takes the next extent
//!                                                         |
//!       file: O_DIRECT io_uring reads     http: range requests     into the extent's slot of the ring
//!                                                         |
//!                        host: the bytes are in place     GPU: copied on a stream; after its
//!                                |                        event the slot is free
//!                                |                               |
//!                     tensors: views of the slot, or of the GPU's memory, handed out as they
//!                     complete; when the last one of a slot is dropped, it is free for a later extent
//! ```
//!
//! | word | meaning |
//! | --- | --- |
//! | checkpoint | one or more safetensors files (shards), perhaps with a `model.safetensors.index.json` |
//! | location | a parsed URI or path |
//! | source | where a shard's bytes come from: a file, an object |
//! | object | a shard in an object store or on a web server |
//! | store | a place of objects: a bucket, a container, a repository, a web server |
//! | extent | a contiguous byte range of a source that fills one slot; for the host it holds whole tensors |
//! | chunk | one read of an extent |
//! | plan | the ordered list of extents of a load |
//! | slot | a page-aligned range of the ring, sized to its extent |
//! | window | the exclusive right to write one part of a slot; it travels with a read |
//! | ring | the memory that slots come from; its size is the memory limit |
//! | engine | one thread on one core, driving reads |
//! | place | a device of a load, and the ring of its slots |
//! | device transfer | what takes full slots to a GPU |
//! | lane | one of the reads that an engine keeps in flight |
//! | device | where tensors end up: host memory, or the memory of a CUDA GPU |
//! | GPU | a device with memory of its own |
//! | part | filled bytes of a slot, of which others may still be written; for the cache's writer |
//! | entry | an object in the local file cache |
//! | page | 4 KiB of an entry: what is there or missing as one |
//! | seal | the checksum of a page, which says that it is there |
//! | timeline | what slots, engines and GPUs did when |
//! | mark | what a slot carries to have its life taken down in the timeline |
//! | storage | an allocation that tensors are views of; it lives as long as any of them |
//!
//! Start with [`Loader`]. Errors are one type, [`Error`]; metrics are listed in [`mod@metrics`];
//! options and the environment variables they read in [`options`].
//!
//! # How it reads
//!
//! Two ladders are probed at run time, and taken also in mid-load:
//! `uring+registered -> uring -> pread` for the system call, `direct -> buffered` for the file.
//! Every step down is recorded with its reason in the [`Summary`], as an event (`tracing`) and as a
//! metric. What the page cache already holds is read from there.
//!
//! Objects are asked for by range over HTTP/1.1, each lane on a connection of its own. hyper parses
//! heads; bodies go from the socket straight into the slot, by io_uring where there is no TLS.
//!
//! Behind a load, the local file cache (where one is named) takes a share of what came and writes it
//! to disk; the next load reads it from there, each page checked. `cache/mod.rs` says how.
//!
//! # GPUs
//!
//! With [`Loader::device`] tensors end up on NVIDIA GPUs. The CUDA driver is loaded when a GPU is
//! asked for. A GPU has a device transfer, with threads of its own: engines hand it full slots and go on.
//! Tensors only pass through the ring then, in pieces, so it may be smaller than the largest one.
//! Where GPUDirect Storage works, GPUs read local files by themselves ([`ReadPath::Gds`]).
//!
//! # Unsafe code
//!
//! It is confined to `ring` (memory and who may touch it), `source::backend` (io_uring
//! operations), `device::cuda` (the driver's functions), `sys` (two system calls), the lending of
//! caller-owned memory in `read_into`, `tensor::dlpack` and `tensor::aligned` (tensors for other
//! frameworks), and `capi` (what C hands over).

mod cache;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;
pub mod cast;
mod checkpoint;
mod checksum;
mod device;
mod doctor;
mod engine;
mod error;
#[cfg(test)]
#[path = "../tests/support/fault_server.rs"]
mod fault_server;
#[doc(hidden)]
pub mod internals;
mod load;
mod location;
pub mod metrics;
#[cfg(test)]
#[path = "../tests/support/no_uring.rs"]
mod no_uring;
mod numa;
pub mod options;
mod plan;
mod process;
#[allow(unsafe_code)]
mod ring;
mod source;
#[allow(unsafe_code)]
mod sys;
mod tensor;
#[cfg(test)]
mod test_files;
#[cfg(test)]
mod test_server;
pub mod timeline;

pub use cache::{CacheAdmin, CacheEntry, Checked, Pruned};
pub use checkpoint::{Checkpoint, Shard, TensorInfo};
pub use device::{GpuInfo, gpus};
pub use error::{Error, ErrorKind, Result};
pub use load::{
    Download, Downloaded, Listed, Loaded, Loader, Progress, ReadRequest, Summary, TensorStream,
};
pub use location::{IntoLocations, Location, ObjectUri, Scheme};
pub use options::{
    Allocation, CacheSize, CacheValidate, Device, DeviceMap, MemoryLimit, Order, ReadPath,
    RetryLimits, S3Credentials,
};
pub use plan::Pick;
pub use safetensors::Dtype;
pub use source::Downgrade;
pub use tensor::{Storage, Tensor, dlpack};
pub use timeline::Timeline;

/// The Rust examples of README.md and docs/, which are doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/benchmarks.md")]
#[doc = include_str!("../docs/c.md")]
#[doc = include_str!("../docs/cache.md")]
#[doc = include_str!("../docs/command-line.md")]
#[doc = include_str!("../docs/design.md")]
#[doc = include_str!("../docs/gpus.md")]
#[doc = include_str!("../docs/locations.md")]
#[doc = include_str!("../docs/memory-limit.md")]
#[doc = include_str!("../docs/python.md")]
#[doc = include_str!("../docs/runai.md")]
#[doc = include_str!("../docs/rust.md")]
#[doc = include_str!("../docs/serving.md")]
struct Pages;
