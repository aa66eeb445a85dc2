//! Initialises the driver and opens GPUs.

use super::driver_error::check;
use super::functions::{self, call};
use crate::error::{Error, ErrorKind, Result};
use cudarc::driver::sys;

/// Finds and initialises the driver. `ordinal` is the GPU that errors name.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if there is no driver or it is too old; the error of `cuInit`.
pub(super) fn initialise(ordinal: u32) -> Result<()> {
    if let Err(sentence) = functions::load() {
        return Err(Error::new(ErrorKind::Unsupported, format!("cuda:{ordinal}: {sentence}")));
    }
    // SAFETY: the library is loaded and has the function, which may be called repeatedly.
    check(unsafe { call!(cuInit(0)) }, ordinal, "initialise the driver")
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
    check(unsafe { call!(cuDeviceGet(&raw mut device, number)) }, ordinal, "open the GPU")?;
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
    let answer = unsafe { call!(cuDeviceGetAttribute(&raw mut value, attribute, device)) };
    check(answer, ordinal, "query whether it is integrated")?;
    Ok(value != 0)
}
