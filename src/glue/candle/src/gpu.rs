//! Tensors on a GPU: candle allocates them, and ringload loads the bytes directly into them.
//!
//! The bytes pass through the loader's pinned ring, and are copied to the GPU while later parts are
//! being read. Neither the GPU nor host memory has a second copy of a tensor. Floats are cast on the
//! GPU when all have been read, one tensor after the other.
#![allow(unsafe_code)]

use crate::builder::no_type;
use crate::error;
use crate::memory::Elements;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{CudaDevice, Device, DeviceLocation, Error, Result, Storage, Tensor};
use ringload::{Checkpoint, Loader, ReadRequest, TensorInfo};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Loads these tensors of the checkpoint into memory that candle allocates on the GPU.
pub(crate) fn load(
    loader: &Loader,
    checkpoint: &Checkpoint,
    wanted: &[(&TensorInfo, Elements)],
    gpu: &CudaDevice,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    let mut tensors = Vec::with_capacity(wanted.len());
    for (info, elements) in wanted {
        let stored = elements.unchanged().ok_or_else(|| no_type(info))?;
        tensors.push(Tensor::zeros(info.shape(), stored, device)?);
    }
    device.synchronize()?; // the zeros have to be written before the bytes
    let mut requests = Vec::new();
    for ((info, _), tensor) in wanted.iter().zip(&tensors) {
        if info.len_bytes() > 0 {
            requests.push(request(checkpoint, info, tensor, ordinal(gpu)?)?);
        }
    }
    loader.read_into(&mut requests, |_| ControlFlow::Continue(())).map_err(error)?;
    let cast = |((info, elements), tensor): (&(&TensorInfo, Elements), Tensor)| {
        Ok((info.name().to_owned(), tensor.to_dtype(elements.held())?))
    };
    wanted.iter().zip(tensors).map(cast).collect()
}

fn ordinal(gpu: &CudaDevice) -> Result<u32> {
    use candle_core::backend::BackendDevice;
    match gpu.location() {
        DeviceLocation::Cuda { gpu_id } => u32::try_from(gpu_id).map_err(Error::wrap),
        other => Err(Error::Msg(format!("{other:?} is not a GPU"))),
    }
}

/// Returns a request that reads the bytes of one tensor into its memory.
fn request(
    checkpoint: &Checkpoint,
    info: &TensorInfo,
    tensor: &Tensor,
    ordinal: u32,
) -> Result<ReadRequest<'static>> {
    let address = address_of(tensor)?;
    // SAFETY: the caller keeps the tensor until the bytes have been read, and returns it only then.
    // Its memory was just allocated, with as many bytes as the tensor has in the file, and the only
    // work that was queued for it, writing zeros, is complete.
    Ok(unsafe { ReadRequest::tensor_on_device(checkpoint, info, ordinal, address) })
}

/// Returns the address of a new candle tensor in GPU memory.
fn address_of(tensor: &Tensor) -> Result<u64> {
    use CudaStorageSlice::{BF16, F8E4M3, F16, F32, F64, I16, I32, I64, U8, U32};
    let (storage, _) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(Error::Msg("candle created a tensor that is not on the GPU".to_owned()));
    };
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        U8(slice) => slice.device_ptr(&stream).0,
        U32(slice) => slice.device_ptr(&stream).0,
        I16(slice) => slice.device_ptr(&stream).0,
        I32(slice) => slice.device_ptr(&stream).0,
        I64(slice) => slice.device_ptr(&stream).0,
        BF16(slice) => slice.device_ptr(&stream).0,
        F16(slice) => slice.device_ptr(&stream).0,
        F32(slice) => slice.device_ptr(&stream).0,
        F64(slice) => slice.device_ptr(&stream).0,
        F8E4M3(slice) => slice.device_ptr(&stream).0,
        _ => return Err(Error::Msg(format!("{:?} is not supported on GPUs", tensor.dtype()))),
    })
}
