//! Finds the driver's library at run time and initialises the driver.
//!
//! `cudarc` looks up a function at its first call and panics if the function is missing, so this
//! module checks for every function in use before the first call. `cudarc` loads the library by the
//! same names, unless another crate in the build links it (as candle does). In that case the library
//! is loaded when the process starts, and this module finds that copy.

use super::driver_error::check;
use crate::error::{Error, ErrorKind, Result};
use cudarc::driver::sys;
use libloading::Library;
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// The functions of the driver that this crate calls.
const FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetPCIBusId",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventDestroy_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuPointerGetAttribute",
];

/// Finds and initialises the driver. `ordinal` is the GPU that errors name.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if there is no driver or it is too old; the error of `cuInit`.
pub(super) fn initialise(ordinal: u32) -> Result<()> {
    static FOUND: OnceLock<Result<Library, String>> = OnceLock::new(); // never unloaded
    if let Err(sentence) = FOUND.get_or_init(find) {
        return Err(Error::new(ErrorKind::Unsupported, format!("cuda:{ordinal}: {sentence}")));
    }
    // SAFETY: the library is loaded and has the function, which may be called repeatedly.
    check(unsafe { sys::cuInit(0) }, ordinal, "initialise the driver")
}

/// Initialises the driver and returns its handle for GPU `ordinal`.
///
/// # Errors
/// As [`initialise`], and if there is no such GPU.
pub(super) fn device(ordinal: u32) -> Result<sys::CUdevice> {
    initialise(ordinal)?;
    let mut device = 0;
    let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
    // SAFETY: the pointer is valid for the answer; the driver is initialised.
    check(unsafe { sys::cuDeviceGet(&raw mut device, number) }, ordinal, "open the GPU")?;
    Ok(device)
}

/// Whether the GPU has no memory of its own and uses that of the host, as in Jetson modules and in
/// GB10. (A GPU of Grace Hopper shares the host's page tables, but has its own memory.)
///
/// # Errors
/// If the driver fails.
pub(super) fn is_integrated(device: sys::CUdevice, ordinal: u32) -> Result<bool> {
    let mut value = 0;
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED;
    // SAFETY: the pointer is valid for the answer, and the driver gave the device.
    let answer = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) };
    check(answer, ordinal, "query whether it is integrated")?;
    Ok(value != 0)
}

/// Loads the library. Fails with a sentence if it is missing or lacks a function.
fn find() -> Result<Library, String> {
    let open = |name: &'static str| {
        // SAFETY: loading NVIDIA's library runs its initialisers, as intended.
        unsafe { Library::new(name) }.ok()
    };
    let library = NAMES.into_iter().find_map(open).ok_or(
        "no CUDA driver (libcuda.so.1) was found; install NVIDIA's driver, or load to cpu",
    )?;
    let has = |name: &&&str| {
        // SAFETY: the symbol is looked up but never called through this type.
        unsafe { library.get::<*const ()>(name.as_bytes()) }.is_ok()
    };
    match FUNCTIONS.iter().find(|name| !has(name)) {
        None => Ok(library),
        Some(missing) => {
            Err(format!("the CUDA driver lacks {missing}; install a driver of CUDA 12.2 or later"))
        }
    }
}
