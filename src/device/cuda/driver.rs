//! The driver's library: found at run time, or said to be missing.
//!
//! `cudarc` looks functions up when they are first called and panics where one is missing, so all
//! that are used here are looked for once, before the first call.

use super::failure::check;
use crate::error::{Error, ErrorKind, Result};
use cudarc::driver::sys;
use std::sync::OnceLock;

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
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(sentence) = FOUND.get_or_init(find) {
        return Err(Error::new(ErrorKind::Unsupported, format!("cuda:{ordinal}: {sentence}")));
    }
    // SAFETY: the library is there and has the function; it may be called any number of times.
    check(unsafe { sys::cuInit(0) }, ordinal, "initialise the driver")
}

/// Fails with a sentence unless the library is there with all its functions.
fn find() -> Result<(), String> {
    // SAFETY: loading NVIDIA's library runs its initialisers, which is what is asked for.
    if !unsafe { sys::is_culib_present() } {
        return Err("no CUDA driver (libcuda.so.1) is on this machine; install NVIDIA's driver, \
                    or load to cpu"
            .to_owned());
    }
    let has = |name: &&&str| {
        // SAFETY: the symbol is only looked for, never called through this.
        unsafe { sys::culib().get::<*const ()>(name.as_bytes()) }.is_ok()
    };
    match FUNCTIONS.iter().find(|name| !has(name)) {
        None => Ok(()),
        Some(missing) => {
            Err(format!("the CUDA driver lacks {missing}; install a driver of CUDA 12.2 or later"))
        }
    }
}
