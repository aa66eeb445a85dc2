//! Loads [candle](candle_core) models with [ringload]: from local disks as fast as they are, and from
//! object stores and web servers.
//!
//! ```no_run
//! use candle_core::{DType, Device};
//! use ringload::Loader;
//!
//! # fn main() -> candle_core::Result<()> {
//! let (loader, device) = (Loader::new(), Device::Cpu);
//! // was: unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &device)? }
//! let weights = ringload_candle::var_builder(&loader, "/models/llama-8b", DType::F32, &device)?;
//! let norm = weights.pp("model").pp("norm").get(4096, "weight")?;
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! | --- | --- |
//! | build a model | [`var_builder`] |
//! | read each tensor when the model asks for it | [`lazy_var_builder`] |
//! | build one rank of a tensor-parallel model | [`sharded`] |
//! | have all tensors by name | [`load`] |
//! | put ringload below a builder of one's own | [`Weights`] |
//!
//! A location is what [`Loader::open`](ringload::Loader::open) takes: a directory, file or index, and
//! with the features `http`, `s3`, `gcs`, `azure` and `hub` also an object.
//!
//! # How a load works
//!
//! candle's tensors on the CPU own their memory. [`load`] and [`var_builder`] read all tensors straight
//! into that memory, on all cores, and cast floats there to the type of the builder. So the model is in
//! memory once, and the page cache keeps nothing that was not in it before. On a GPU (feature `cuda`),
//! candle allocates the tensors and ringload reads into them.
//!
//! The options of the loader apply, apart from its `device` and `dtype`, which the arguments give. A load
//! shows how far it is in the [`Progress`](ringload::Progress) that its loader was given
//! ([`Loader::progress`](ringload::Loader::progress)).
//! A loader that checks bytes (`verify`, `manifest`, `check_finite`) or loads parts (`slices`) passes the
//! tensors through its ring, whose size is the loader's memory limit.
//!
//! The minor version of this crate is that of candle: 0.11 is for candle 0.11, and 0.10 for candle 0.10.

mod builder;
mod eager;
#[cfg(feature = "cuda")]
mod gpu;
mod memory;
mod sharded;

pub use builder::Weights;
pub use ringload;
pub use sharded::{ShardedVarBuilder, ShardedWeights};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use ringload::{IntoLocations, Loader};
use std::collections::HashMap;
use std::sync::Arc;

/// Loads the checkpoint at `location`. Returns its tensors by name, with the types that they have in
/// the file, or cast to `dtype` if they are floats of 16 or 32 bits and `dtype` is another such type.
///
/// # Errors
/// Those of the load, which keep their text and are of [`ringload::Error`]; and if candle has no type
/// for a tensor.
pub fn load(
    loader: &Loader,
    location: impl IntoLocations,
    dtype: Option<DType>,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    let checkpoint = Arc::new(loader.open(location).map_err(error)?);
    if let Some(info) = eager::without_a_type(loader, &checkpoint)? {
        return Err(builder::no_type(info));
    }
    eager::load(loader, &checkpoint, dtype, device)
}

/// Loads the checkpoint at `location` for a model whose weights have the type `dtype`. It takes the
/// place of `VarBuilder::from_mmaped_safetensors`, and gives the same tensors.
///
/// # Errors
/// Those of the load. A tensor of a type that candle does not have is an error when it is asked for.
pub fn var_builder(
    loader: &Loader,
    location: impl IntoLocations,
    dtype: DType,
    device: &Device,
) -> Result<VarBuilder<'static>> {
    let weights = Weights::eager(loader, location, dtype, device)?;
    Ok(VarBuilder::from_backend(Box::new(weights), dtype, device.clone()))
}

/// As [`var_builder`], for models that ask for a part of the tensors only: opens the checkpoint, and
/// reads each tensor when the model asks for it.
///
/// # Errors
/// Those of opening. A tensor that cannot be read is an error when it is asked for.
pub fn lazy_var_builder(
    loader: &Loader,
    location: impl IntoLocations,
    dtype: DType,
    device: &Device,
) -> Result<VarBuilder<'static>> {
    let weights = Weights::lazy(loader, location)?;
    Ok(VarBuilder::from_backend(Box::new(weights), dtype, device.clone()))
}

/// Opens the checkpoint at `location` for one rank of a tensor-parallel model, which asks for tensors
/// with a [`Shard`](candle_nn::var_builder::Shard). Only the rank's parts are read. It takes the place
/// of `ShardedSafeTensors::var_builder`.
///
/// # Errors
/// As [`lazy_var_builder`].
pub fn sharded(
    loader: &Loader,
    location: impl IntoLocations,
    dtype: DType,
    device: &Device,
) -> Result<ShardedVarBuilder<'static>> {
    let weights = ShardedWeights::new(Weights::lazy(loader, location)?);
    Ok(ShardedVarBuilder::new_with_args(weights, dtype, device))
}

/// An error of ringload as one of candle.
fn error(error: ringload::Error) -> candle_core::Error {
    candle_core::Error::Wrapped(Box::new(error))
}
