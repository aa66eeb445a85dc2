//! Converts the driver's result codes to errors, with one table for all of them.
//!
//! Names and meanings follow NVIDIA's CUDA driver API reference, "Data types used by CUDA driver",
//! `CUresult`.

use super::answer::Answer;
use crate::error::{Error, ErrorKind, Result};
use cudarc::driver::sys::CUresult;
use std::fmt;

use CUresult::*;
use ErrorKind::{Device, InvalidInput, OutOfMemory, Unsupported};

/// A result code, the kind of its error, its description and its remedy (empty if there is none).
type Row = (CUresult, ErrorKind, &'static str, &'static str);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (CUDA_ERROR_INVALID_VALUE,         Device,       "the driver rejected an argument", ""),
    (CUDA_ERROR_OUT_OF_MEMORY,         OutOfMemory,  "the GPU has too little free memory", "free memory on it, or load fewer tensors to it"),
    (CUDA_ERROR_NOT_INITIALIZED,       Device,       "the driver is not initialised", ""),
    (CUDA_ERROR_DEINITIALIZED,         Device,       "the driver is shutting down with the process", ""),
    (CUDA_ERROR_STUB_LIBRARY,          Unsupported,  "libcuda.so is the toolkit's stub and not the driver", "remove the stub from LD_LIBRARY_PATH"),
    (CUDA_ERROR_DEVICE_UNAVAILABLE,    Device,       "the GPU is in use exclusively or in a bad state", "see nvidia-smi"),
    (CUDA_ERROR_NO_DEVICE,             InvalidInput, "no GPU is visible", "check nvidia-smi and CUDA_VISIBLE_DEVICES, or load to cpu"),
    (CUDA_ERROR_INVALID_DEVICE,        InvalidInput, "no GPU has this number", "run `ringload doctor` to list the GPUs"),
    (CUDA_ERROR_INVALID_IMAGE,         Device,       "the driver rejected the kernels", ""),
    (CUDA_ERROR_INVALID_CONTEXT,       Device,       "the GPU's context is invalid", "check whether this process resets the GPU"),
    (CUDA_ERROR_NO_BINARY_FOR_GPU,     Unsupported,  "the GPU is too old for the kernels", ""),
    (CUDA_ERROR_ECC_UNCORRECTABLE,     Device,       "the GPU reported an uncorrectable memory error", "see nvidia-smi -q -d ECC and reset the GPU"),
    (CUDA_ERROR_INVALID_PTX,           Device,       "the driver cannot compile the kernels", ""),
    (CUDA_ERROR_UNSUPPORTED_PTX_VERSION, Unsupported, "the driver is too old for the kernels", "install a driver of CUDA 12.2 or later"),
    (CUDA_ERROR_JIT_COMPILER_NOT_FOUND, Unsupported, "the driver's PTX compiler (libnvidia-ptxjitcompiler) is missing", "install the complete driver"),
    (CUDA_ERROR_NOT_FOUND,             Device,       "the loaded module lacks the kernel", ""),
    (CUDA_ERROR_NOT_READY,             Device,       "the work has not finished yet", ""),
    (CUDA_ERROR_ILLEGAL_ADDRESS,       Device,       "the GPU accessed an illegal address; its context is lost", "restart the process"),
    (CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, Device,     "the GPU lacks resources for the kernel", ""),
    (CUDA_ERROR_LAUNCH_TIMEOUT,        Device,       "the kernel exceeded the GPU's time limit; its context is lost", "restart the process"),
    (CUDA_ERROR_LAUNCH_FAILED,         Device,       "the kernel failed; the GPU's context is lost", "restart the process"),
    (CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, Device, "the memory is already registered with CUDA", ""),
    (CUDA_ERROR_NOT_PERMITTED,         Unsupported,  "the driver does not permit this operation", ""),
    (CUDA_ERROR_NOT_SUPPORTED,         Unsupported,  "the driver does not support this operation", ""),
    (CUDA_ERROR_SYSTEM_NOT_READY,      Device,       "the GPU's fabric is not ready", "check that nvidia-fabricmanager is running"),
    (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, Unsupported, "the driver's library and kernel module have different versions", "reboot, or reinstall the driver"),
    (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, Unsupported, "the compatibility libraries do not support this GPU", "remove cuda-compat from LD_LIBRARY_PATH"),
];

/// Converts the driver's `answer` to a call made while `doing` something on GPU `ordinal`.
///
/// # Errors
/// For every answer except success.
pub(super) fn check(answer: Answer, ordinal: u32, doing: impl fmt::Display) -> Result<()> {
    if answer == Answer::SUCCESS {
        return Ok(());
    }
    let row = TABLE.iter().find(|row| Answer::of(row.0) == answer);
    let (kind, what, remedy) = row
        .map_or((Device, "the driver failed", ""), |&(_, kind, what, remedy)| (kind, what, remedy));
    let mut context = format!("cuda:{ordinal}: cannot {doing}: {what} ({answer:?})");
    if !remedy.is_empty() {
        context += "; ";
        context += remedy;
    }
    Err(Error::new(kind, context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_one_line_and_unknown_ones_are_named() {
        for (number, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..number].iter().all(|other| other.0 != row.0), "{:?}", row.0);
        }
        let known = check(Answer::of(CUDA_ERROR_OUT_OF_MEMORY), 1, "allocate 5 bytes").unwrap_err();
        assert_eq!(known.kind(), OutOfMemory);
        assert_eq!(
            known.to_string(),
            "cuda:1: cannot allocate 5 bytes: the GPU has too little free memory \
             (CUDA_ERROR_OUT_OF_MEMORY); free memory on it, or load fewer tensors to it"
        );
        let unknown = check(Answer::of(CUDA_ERROR_ASSERT), 0, "copy").unwrap_err().to_string();
        assert!(unknown.contains("CUDA_ERROR_ASSERT"), "{unknown}");
        assert!(check(Answer::SUCCESS, 0, "copy").is_ok());
    }
}
