//! Loads all tensors of a checkpoint into candle's memory.
//!
//! Engines read into the memory of the tensors ([`HostTensor`]). As soon as one is complete, another
//! thread moves it to its place or casts it, while the next ones are being read.

use crate::error;
use crate::memory::{Elements, HostTensor};
use candle_core::{DType, Device, Result, Tensor};
use rayon::iter::{ParallelBridge, ParallelIterator};
use ringload::{Checkpoint, Loader, Location, ReadRequest, TensorInfo};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

type Tensors = HashMap<String, Tensor>;

/// Loads the tensors that the loader selects and candle has a type for, on `device`.
pub(crate) fn load(
    loader: &Loader,
    checkpoint: &Arc<Checkpoint>,
    dtype: Option<DType>,
    device: &Device,
) -> Result<Tensors> {
    if !loader.is_plain() {
        return load_through_ring(loader, checkpoint, dtype, device);
    }
    let mut wanted = Vec::new();
    for index in loader.selected(checkpoint).map_err(error)? {
        let info = &checkpoint.tensors()[index];
        if let Some(elements) = Elements::new(info.dtype(), dtype) {
            wanted.push((info, elements));
        }
    }
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        return crate::gpu::load(loader, checkpoint, &wanted, gpu, device);
    }
    load_into_place(loader, checkpoint, &wanted, device)
}

/// The first tensor that the loader selects and candle has no type for.
pub(crate) fn without_a_type<'a>(
    loader: &Loader,
    checkpoint: &'a Checkpoint,
) -> Result<Option<&'a TensorInfo>> {
    let selected = loader.selected(checkpoint).map_err(error)?;
    let mut infos = selected.into_iter().map(|index| &checkpoint.tensors()[index]);
    Ok(infos.find(|info| Elements::new(info.dtype(), None).is_none()))
}

fn load_into_place(
    loader: &Loader,
    checkpoint: &Checkpoint,
    wanted: &[(&TensorInfo, Elements)],
    device: &Device,
) -> Result<Tensors> {
    let direct: Vec<bool> = checkpoint.shards().iter().map(is_read_from_disk).collect();
    let mut memory: Vec<Option<HostTensor>> = wanted
        .iter()
        .map(|(info, to)| Some(HostTensor::for_reading(info, *to, direct[info.shard()])))
        .collect();
    let mut requests = Vec::with_capacity(wanted.len());
    for ((info, _), tensor) in wanted.iter().zip(&mut memory) {
        let Some(tensor) = tensor else { continue };
        requests.push(request(checkpoint, info, tensor));
    }
    let finished = Mutex::new(Vec::with_capacity(wanted.len()));
    let read = rayon::in_place_scope(|tasks| {
        loader.read_into(&mut requests, |index| {
            let (Some(tensor), finished) = (memory[index].take(), &finished) else {
                return ControlFlow::Continue(());
            };
            tasks.spawn(move |_| {
                let tensor = tensor.finish(device);
                let name = wanted[index].0.name().to_owned();
                let mut finished = finished.lock().unwrap_or_else(PoisonError::into_inner);
                finished.push(tensor.map(|tensor| (name, tensor)));
            });
            ControlFlow::Continue(())
        })
    });
    read.map_err(error)?;
    finished.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

/// Whether a shard is a file that the page cache does not have.
fn is_read_from_disk(shard: &ringload::Shard) -> bool {
    let is_cached = |cached: u64| cached >= shard.len_bytes() / 8 * 7;
    matches!(shard.location(), Location::File(_)) && !shard.cached_bytes().is_some_and(is_cached)
}

#[allow(unsafe_code)]
fn request(
    checkpoint: &Checkpoint,
    info: &TensorInfo,
    tensor: &mut HostTensor,
) -> ReadRequest<'static> {
    // SAFETY: the memory was allocated for these bytes. It is used again when the request is complete,
    // or freed when `read_into` has returned.
    unsafe { ReadRequest::tensor_at(checkpoint, info, tensor.address()) }
}

/// Copies the tensors from the loader's ring, where bytes are checked and parts are gathered.
fn load_through_ring(
    loader: &Loader,
    checkpoint: &Arc<Checkpoint>,
    dtype: Option<DType>,
    device: &Device,
) -> Result<Tensors> {
    let loader = loader.clone().device(ringload::Device::Host);
    let stream = loader.stream_checkpoint(Arc::clone(checkpoint)).map_err(error)?;
    // Each core takes the next complete tensor, copies it, and drops it, which frees its memory.
    let tensors = stream.par_bridge().map(|tensor| {
        let tensor = tensor.map_err(error)?;
        let elements = Elements::new(tensor.dtype(), dtype);
        let Some(elements) = elements else { return Ok(None) };
        let copy = HostTensor::copied(tensor.bytes(), tensor.shape(), elements);
        Ok(Some((tensor.name().to_owned(), copy?.to_device(device)?)))
    });
    tensors.filter_map(Result::transpose).collect()
}
