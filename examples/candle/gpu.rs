//! Tensors on a GPU: candle allocates them, and ringload loads the bytes directly into them.
//!
//! The bytes pass through the loader's pinned ring, and are copied to the GPU while later parts are
//! being read. Neither the GPU nor host memory has a second copy of a tensor.
#![allow(unsafe_code)]

use crate::{Outcome, Tensors, dtype_of};
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{Device, Storage, Tensor};
use ringload::{Checkpoint, Loader, ReadRequest, TensorInfo};
use std::ops::ControlFlow;

/// Loads all tensors of the checkpoint into memory that candle allocates on GPU `ordinal`.
pub fn load(loader: &Loader, location: &str, ordinal: u32) -> Outcome<Tensors> {
    let checkpoint = loader.open(location)?;
    let device = Device::new_cuda(ordinal as usize)?;
    let tensors = checkpoint
        .tensors()
        .iter()
        .map(|info| Ok(Tensor::zeros(info.shape(), dtype_of(info)?, &device)?))
        .collect::<Outcome<Vec<_>>>()?;
    device.synchronize()?; // the zeros have to be written before the bytes
    fill(loader, &checkpoint, &tensors, ordinal)?;
    let names = checkpoint.tensors().iter().map(|info| info.name().to_owned());
    Ok(names.zip(tensors).collect())
}

fn fill(loader: &Loader, checkpoint: &Checkpoint, tensors: &[Tensor], ordinal: u32) -> Outcome<()> {
    let mut requests = Vec::new();
    for (info, tensor) in checkpoint.tensors().iter().zip(tensors) {
        if info.len_bytes() > 0 {
            requests.push(request(checkpoint, info, tensor, ordinal)?);
        }
    }
    loader.read_into(&mut requests, |_| ControlFlow::Continue(()))?;
    Ok(())
}

/// Returns a request that reads the bytes of one tensor into its memory.
fn request(
    checkpoint: &Checkpoint,
    info: &TensorInfo,
    tensor: &Tensor,
    ordinal: u32,
) -> Outcome<ReadRequest<'static>> {
    let location = checkpoint.shards()[info.shard()].location().clone();
    let address = address_of(tensor)?;
    // SAFETY: the caller keeps the tensor until the bytes have been read, and returns it only then.
    // Its memory was just allocated, with as many bytes as the tensor has in the file, and the only
    // work that was queued for it, writing zeros, is complete.
    let request = unsafe {
        ReadRequest::on_device(location, info.offset_bytes(), ordinal, address, info.len_bytes())
    };
    Ok(request)
}

/// Returns the address of a new candle tensor in GPU memory.
fn address_of(tensor: &Tensor) -> Outcome<u64> {
    use CudaStorageSlice::{BF16, F8E4M3, F16, F32, F64, I16, I32, I64, U8, U32};
    let (storage, _) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err("candle created a tensor that is not on the GPU".into());
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
        _ => return Err(format!("{:?} is not supported on GPUs here", tensor.dtype()).into()),
    })
}
