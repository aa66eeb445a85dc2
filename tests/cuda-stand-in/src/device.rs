//! Devices: as many as configured, all alike.

use crate::call::{Call, answer, put};
use crate::result::{
    CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NO_DEVICE,
    CUDA_ERROR_NOT_INITIALIZED, CUresult,
};
use std::ffi::{c_char, c_int, c_uint};

/// The CUDA version of the driver: 12.2.
const VERSION: c_int = 12_020;

const INTEGRATED: u32 = 18;

/// Device attributes by the driver's numbers.
const ATTRIBUTES: &[(u32, c_int)] = &[
    (1, 1024),        // the most threads of a block
    (2, 1024),        // the most threads of a block in x
    (5, 0x7FFF_FFFF), // the most blocks of a grid in x
    (8, 48 << 10),    // shared memory of a block
    (10, 32),         // threads of a warp
    (16, 132),        // multiprocessors
    (INTEGRATED, 0),  // has its own memory
    (19, 1),          // can map host memory
    (20, 0),          // may be shared
    (39, 2048),       // the most threads of a multiprocessor
    (40, 3),          // copy engines
    (41, 1),          // unified addresses
    (75, 9),          // compute capability
    (76, 0),          // its minor number
    (81, 228 << 10),  // shared memory of a multiprocessor
    (91, 1),          // registered memory has the same address on the device
    (97, 227 << 10),  // shared memory of a block that asks
    (99, 1),          // can register host memory
    (110, 1),         // GPUDirect RDMA with virtual memory
    (113, 1),         // can register memory that is only readable
    (115, 0),         // no memory pools
    (116, 1),         // GPUDirect RDMA
];

/// Returns an error unless the device exists. As in the real driver, this is not an incorrect use.
pub(crate) fn checked(call: &mut Call, device: c_int) -> Result<(), CUresult> {
    let devices = call.state.orders().devices;
    (0..devices).contains(&device).then_some(()).ok_or(CUDA_ERROR_INVALID_DEVICE)
}

/// Writes a text and its NUL, cut to `len` bytes.
///
/// # Safety
/// `place` is null or has room for `len` bytes.
unsafe fn put_text(place: *mut c_char, len: c_int, text: &str) -> Result<(), CUresult> {
    if place.is_null() || len < 1 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let cut = text.len().min(len as usize - 1);
    // SAFETY: the caller guarantees it; the text is cut to leave room for NUL.
    unsafe {
        place.copy_from_nonoverlapping(text.as_ptr().cast(), cut);
        place.wrapping_add(cut).write(0);
    }
    Ok(())
}

/// Starts the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuInit", &[flags.into()])?;
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if ![0, std::process::id()].contains(&call.state.process) {
            return Err(CUDA_ERROR_NOT_INITIALIZED);
        }
        if call.state.orders().devices == 0 {
            return Err(CUDA_ERROR_NO_DEVICE);
        }
        call.state.process = std::process::id();
        Ok(())
    })
}

/// Returns the CUDA version of the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> CUresult {
    answer(|| {
        drop(Call::free("cuDriverGetVersion", &[])?);
        // SAFETY: the driver's contract.
        unsafe { put(version, VERSION) }
    })
}

/// Returns the number of devices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDeviceGetCount", &[])?;
        // SAFETY: the driver's contract.
        unsafe { put(count, call.state.orders().devices) }
    })
}

/// Returns the device of an ordinal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDeviceGet", &[ordinal as u64])?;
        checked(&mut call, ordinal)?;
        // SAFETY: the driver's contract.
        unsafe { put(device, ordinal) }
    })
}

/// Returns the device's name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDeviceGetName", &[device as u64])?;
        checked(&mut call, device)?;
        // SAFETY: the driver's contract.
        unsafe { put_text(name, len, "CUDA stand-in") }
    })
}

/// Returns the device's PCI address. Its PCI domain exists on no machine, so that /sys has no entry
/// for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(
    id: *mut c_char,
    len: c_int,
    device: c_int,
) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDeviceGetPCIBusId", &[device as u64])?;
        checked(&mut call, device)?;
        // SAFETY: the driver's contract.
        unsafe { put_text(id, len, &format!("FFFF:{:02X}:00.0", 0xA0 + device)) }
    })
}

/// Returns an attribute of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: u32,
    device: c_int,
) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDeviceGetAttribute", &[attribute.into(), device as u64])?;
        checked(&mut call, device)?;
        let known = ATTRIBUTES.iter().find(|(known, _)| *known == attribute);
        let mut answer = known.ok_or(CUDA_ERROR_INVALID_VALUE)?.1;
        if attribute == INTEGRATED && call.state.orders().page_cache_bytes.is_some() {
            answer = 1;
        }
        // SAFETY: the driver's contract.
        unsafe { put(value, answer) }
    })
}

/// Returns the size of the device's memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> CUresult {
    answer(|| {
        let mut call = Call::free("cuDeviceTotalMem_v2", &[device as u64])?;
        checked(&mut call, device)?;
        // SAFETY: the driver's contract.
        unsafe { put(bytes, call.state.orders().memory_bytes) }
    })
}
