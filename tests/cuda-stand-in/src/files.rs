//! cuFile's functions.

use crate::copy::flips;
use crate::file::{Buffer, CUfileError, Handle, answer, enter, enter_in_context};
use crate::orders::Gds;
use crate::random::Random;
use crate::result::{
    CU_FILE_DRIVER_NOT_INITIALIZED, CU_FILE_HANDLE_ALREADY_REGISTERED, CU_FILE_INVALID_FILE_TYPE,
    CU_FILE_INVALID_VALUE, CU_FILE_MEMORY_ALREADY_REGISTERED,
};
use crate::state::{Kind, lock};
use crate::work::flip_bit;
use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The description's handle is a file descriptor.
pub const CU_FILE_HANDLE_TYPE_OPAQUE_FD: u32 = 1;
const CU_FILE_NVME_SUPPORTED: u32 = 4;
const CU_FILE_ALLOW_COMPAT_MODE: u32 = 1;
const PIECE_BYTES: u64 = 256 << 10;
/// The length of a short read is a multiple of this.
const BLOCK_BYTES: u64 = 4 << 10;

/// The file to register.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CUfileDescr {
    /// The kind of `handle`.
    pub kind: u32,
    /// A file descriptor in the lower half.
    pub handle: u64,
    /// The functions of the caller's own file system.
    pub operations: *const c_void,
}

/// The properties of the driver.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CUfileDrvProps {
    /// The version of the kernel module; 0 if there is none.
    pub nvfs_version: [c_uint; 2],
    /// The size above which it polls.
    pub poll_threshold: usize,
    /// The largest request.
    pub most_direct_io: usize,
    /// The supported file systems, one bit each.
    pub status_flags: c_uint,
    /// Whether it falls back to compatibility mode.
    pub control_flags: c_uint,
    /// Features.
    pub feature_flags: c_uint,
    /// Limits of caches and batches.
    pub limits: [c_uint; 5],
}

/// Opens the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuFileDriverOpen() -> CUfileError {
    answer(|| {
        let mut call = enter("cuFileDriverOpen", &[])?;
        call.state.files.opened += 1;
        Ok(())
    })
}

/// Closes the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuFileDriverClose() -> CUfileError {
    close("cuFileDriverClose")
}

/// Closes the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuFileDriverClose_v2() -> CUfileError {
    close("cuFileDriverClose_v2")
}

fn close(function: &'static str) -> CUfileError {
    answer(|| {
        let mut call = enter(function, &[])?;
        let files = &mut call.state.files;
        if files.opened == 0 {
            return Err(CUfileError::file(CU_FILE_DRIVER_NOT_INITIALIZED));
        }
        files.opened -= 1;
        let (handles, buffers) = (files.handles.len(), files.buffers.len());
        if files.opened == 0 && handles + buffers > 0 {
            alarm!("{function}: {handles} handles and {buffers} buffers are still registered");
        }
        Ok(())
    })
}

/// Returns the properties of the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileDriverGetProperties(properties: *mut CUfileDrvProps) -> CUfileError {
    answer(|| {
        let mut call = enter("cuFileDriverGetProperties", &[])?;
        let is_on = call.state.orders().gds == Gds::On;
        let answer = CUfileDrvProps {
            nvfs_version: if is_on { [2, 20] } else { [0, 0] },
            poll_threshold: 4,
            most_direct_io: 16384,
            status_flags: if is_on { 1 << CU_FILE_NVME_SUPPORTED } else { 0 },
            control_flags: 1 << CU_FILE_ALLOW_COMPAT_MODE,
            feature_flags: 0,
            limits: [131_072, 1024, 33_554_432, 128, 0],
        };
        if properties.is_null() {
            return Err(CUfileError::file(CU_FILE_INVALID_VALUE));
        }
        // SAFETY: cuFile's contract.
        unsafe { properties.write(answer) };
        Ok(())
    })
}

/// Registers a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileHandleRegister(
    handle: *mut usize,
    description: *mut CUfileDescr,
) -> CUfileError {
    answer(|| {
        let mut call = enter("cuFileHandleRegister", &[])?;
        // SAFETY: cuFile's contract.
        let CUfileDescr { kind, handle: fd, .. } = unsafe { *description };
        let fd = fd as u32 as c_int;
        if kind != CU_FILE_HANDLE_TYPE_OPAQUE_FD {
            return Err(CUfileError::file(CU_FILE_INVALID_FILE_TYPE));
        }
        if call.state.files.handles.values().any(|known| known.fd == fd) {
            return Err(CUfileError::file(CU_FILE_HANDLE_ALREADY_REGISTERED));
        }
        let file = File::open(format!("/proc/self/fd/{fd}"));
        let file = file.ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()));
        let file = Arc::new(file.ok_or(CUfileError::file(CU_FILE_INVALID_FILE_TYPE))?);
        let given = Kind::File.new_handle();
        call.state.files.handles.insert(given, Handle { fd, file });
        // SAFETY: cuFile's contract.
        unsafe { handle.write(given) };
        Ok(())
    })
}

/// Ends a file's registration.
#[unsafe(no_mangle)]
pub extern "C" fn cuFileHandleDeregister(handle: usize) {
    let Ok(mut call) = enter("cuFileHandleDeregister", &[]) else { return };
    if call.state.files.handles.remove(&handle).is_none() {
        Kind::File.missing(call.function, handle);
    }
}

/// Registers device memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuFileBufRegister(
    pointer: *const c_void,
    bytes: usize,
    flags: c_int,
) -> CUfileError {
    answer(|| {
        let bytes = bytes as u64;
        let mut call = enter_in_context("cuFileBufRegister", &[bytes, flags as u64])?;
        let start = pointer as u64;
        if bytes == 0 {
            return Err(CUfileError::file(CU_FILE_INVALID_VALUE));
        }
        let allocation = call.state.device_range(call.function, call.context, start, bytes);
        if call.state.files.buffers.contains_key(&start) {
            return Err(CUfileError::file(CU_FILE_MEMORY_ALREADY_REGISTERED));
        }
        call.state.files.buffers.insert(start, Buffer { bytes, allocation });
        Ok(())
    })
}

/// Ends the registration of device memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuFileBufDeregister(pointer: *const c_void) -> CUfileError {
    answer(|| {
        let mut call = enter("cuFileBufDeregister", &[])?;
        let start = pointer as u64;
        match call.state.files.buffers.remove(&start) {
            Some(buffer) if call.state.files.reading.contains(&buffer.allocation) => {
                alarm!("{}: cuFileRead is reading into the memory", call.function);
            }
            Some(_) => Ok(()),
            None => alarm!("{}: {start:#x} is not registered with cuFile", call.function),
        }
    })
}

/// Reads from a file into device memory; sometimes fewer bytes than requested.
#[unsafe(no_mangle)]
pub extern "C" fn cuFileRead(
    handle: usize,
    pointer: *mut c_void,
    bytes: usize,
    file_offset: i64,
    device_offset: i64,
) -> isize {
    let bytes = bytes as u64;
    match read(handle, pointer as u64, bytes, file_offset, device_offset) {
        Ok(read) => read as isize,
        Err(error) => -(error.err as isize),
    }
}

fn read(
    handle: usize,
    base: u64,
    bytes: u64,
    file_offset: i64,
    device_offset: i64,
) -> Result<u64, CUfileError> {
    let mut call = enter_in_context("cuFileRead", &[bytes, file_offset as u64])?;
    let function = call.function;
    let Some(known) = call.state.files.handles.get(&handle) else {
        Kind::File.missing(function, handle);
    };
    let file = Arc::clone(&known.file);
    let (Ok(offset), Ok(inner)) = (u64::try_from(file_offset), u64::try_from(device_offset)) else {
        return Err(CUfileError::file(CU_FILE_INVALID_VALUE));
    };
    if bytes == 0 {
        return Ok(0);
    }
    if let Some(buffer) = call.state.files.buffers.get(&base)
        && inner + bytes > buffer.bytes
    {
        alarm!("{function}: {bytes} bytes at {inner} go past the end of the registered memory");
    }
    let allocation = call.state.device_range(function, call.context, base + inner, bytes);
    call.state.files.reading.push(allocation);
    call.state.files.reads += 1;
    let flip = flips(&mut call);
    let mut random = Random::new(call.state.orders().seed, 1 << 32 | call.state.files.reads);
    drop(call);
    let result = fill(&file, base + inner, shortened(bytes, &mut random), offset, &mut random);
    if let (true, Ok(done @ 1..)) = (flip, &result) {
        flip_bit(base + inner + random.below(*done));
    }
    let reading = &mut lock().files.reading;
    if let Some(place) = reading.iter().position(|known| *known == allocation) {
        reading.swap_remove(place);
    }
    result.map_err(|_| CUfileError::file(crate::result::CU_FILE_INTERNAL_ERROR))
}

/// The number of bytes to read, usually all of `bytes`.
fn shortened(bytes: u64, random: &mut Random) -> u64 {
    let blocks = bytes / BLOCK_BYTES;
    if blocks > 1 && random.chance(10) {
        (1 + random.below(blocks - 1)) * BLOCK_BYTES
    } else {
        bytes
    }
}

fn fill(
    file: &File,
    target: u64,
    bytes: u64,
    offset: u64,
    random: &mut Random,
) -> std::io::Result<u64> {
    let mut done = 0;
    while done < bytes {
        let len = PIECE_BYTES.min(bytes - done) as usize;
        let place = (target + done) as *mut u8;
        // SAFETY: the range is inside an allocation that cannot be freed while it is read into.
        let piece = unsafe { std::slice::from_raw_parts_mut(place, len) };
        match file.read_at(piece, offset + done)? {
            0 => break,
            read => done += read as u64,
        }
        if random.chance(10) {
            thread::sleep(random.up_to(Duration::from_micros(200)));
        }
    }
    Ok(done)
}
