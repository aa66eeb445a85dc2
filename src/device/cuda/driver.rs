//! The driver's library: found at run time, or said to be missing.
//!
//! `cudarc` looks functions up when they are first called and panics where one is missing, so all
//! that are used here are looked for once, before the first call. It looks for the library under the
//! same names, unless another crate of the build has it linked (candle does): then it is there since
//! the process began, and what is found here is that one.

use super::failure::check;
use crate::error::{Error, ErrorKind, Result};
use cudarc::driver::sys;
use libloading::Library;
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// Every function of the driver that this crate calls.
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

/// Finds and initialises the driver.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where there is none or it is too old; what `cuInit` answers.
pub(super) fn initialise(ordinal: u32) -> Result<()> {
    static FOUND: OnceLock<Result<Library, String>> = OnceLock::new(); // stays loaded
    if let Err(sentence) = FOUND.get_or_init(find) {
        return Err(Error::new(ErrorKind::Unsupported, format!("cuda:{ordinal}: {sentence}")));
    }
    // SAFETY: the library is there and has the function; it may be called any number of times.
    check(unsafe { sys::cuInit(0) }, ordinal, "initialise the driver")
}

/// The library, or a sentence where it is not there or lacks a function.
fn find() -> Result<Library, String> {
    let open = |name: &'static str| {
        // SAFETY: loading NVIDIA's library runs its initialisers, which is what is asked for.
        unsafe { Library::new(name) }.ok()
    };
    let library = NAMES.into_iter().find_map(open).ok_or(
        "no CUDA driver (libcuda.so.1) is on this machine; install NVIDIA's driver, or load to cpu",
    )?;
    let has = |name: &&&str| {
        // SAFETY: the symbol is only looked for, never called through this.
        unsafe { library.get::<*const ()>(name.as_bytes()) }.is_ok()
    };
    match FUNCTIONS.iter().find(|name| !has(name)) {
        None => Ok(library),
        Some(missing) => {
            Err(format!("the CUDA driver lacks {missing}; install a driver of CUDA 12.2 or later"))
        }
    }
}
