//! Queries the driver for its GPUs.

use super::driver;
use super::driver_error::check;
use super::functions::call;
use crate::device::gpu_info::GpuInfo;
use crate::error::Result;
use crate::options::Device;
use std::ffi::{CStr, c_char};

/// Returns the GPUs that this process can use, and the driver's CUDA version as (major, minor).
///
/// # Errors
/// If there is no driver or it fails.
pub fn gpus() -> Result<(Vec<GpuInfo>, (u32, u32))> {
    driver::initialise(0)?;
    let (mut count, mut version) = (0, 0);
    // SAFETY: the pointer is valid for the answer.
    check(unsafe { call!(cuDeviceGetCount(&raw mut count)) }, 0, "count GPUs")?;
    // SAFETY: the pointer is valid for the answer.
    check(unsafe { call!(cuDriverGetVersion(&raw mut version)) }, 0, "query the driver's version")?;
    let gpus = (0..count.unsigned_abs()).map(gpu_info).collect::<Result<_>>()?;
    let version = version.unsigned_abs();
    Ok((gpus, (version / 1000, version % 1000 / 10)))
}

/// Returns the properties of GPU `ordinal`; initialises the driver if necessary.
///
/// # Errors
/// If there is no such GPU or the driver fails.
pub(crate) fn gpu_info(ordinal: u32) -> Result<GpuInfo> {
    let device = driver::device(ordinal)?;
    let mut memory_bytes = 0_usize;
    // SAFETY: the pointer is valid for the answer, and the driver gave the device.
    let answer = unsafe { call!(cuDeviceTotalMem_v2(&raw mut memory_bytes, device)) };
    check(answer, ordinal, "query its memory size")?;
    let name = text(|buffer, len| {
        // SAFETY: the buffer holds `len` bytes.
        check(unsafe { call!(cuDeviceGetName(buffer, len, device)) }, ordinal, "query its name")
    })?;
    let pci_address = text(|buffer, len| {
        // SAFETY: the buffer holds `len` bytes.
        let answer = unsafe { call!(cuDeviceGetPCIBusId(buffer, len, device)) };
        check(answer, ordinal, "query its PCI address")
    })?;
    let pci_address = pci_address.to_ascii_lowercase();
    let is_integrated = driver::is_integrated(device, ordinal)?;
    let gpu = GpuInfo::new(Device::cuda(ordinal), name, memory_bytes as u64, pci_address);
    Ok(GpuInfo { is_integrated, ..gpu })
}

/// Reads a short zero-terminated text that the driver writes into a buffer.
fn text(write: impl FnOnce(*mut c_char, i32) -> Result<()>) -> Result<String> {
    let mut buffer = [0_u8; 256];
    write(buffer.as_mut_ptr().cast(), 255)?;
    let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    Ok(text.to_string_lossy().into_owned())
}
