//! Ranges of files and objects, and their destinations.

use crate::capi::abi;
use crate::error::Result;
use crate::load::ReadRequest;
use crate::location::Location;
use crate::options::invalid;
use std::ffi::{c_char, c_int, c_void};

/// Called by ringload_read with the index of a range whose memory is filled. The read stops if the
/// callback does not return 0.
pub type RingloadRangeCallback =
    Option<unsafe extern "C" fn(range: usize, user_data: *mut c_void) -> c_int>;

/// A range of a file or object, and its destination.
#[derive(Debug)]
#[repr(C)]
pub struct RingloadRange {
    /// A path or URI.
    pub location: *const c_char,
    /// The offset of the range in the file or object.
    pub offset_bytes: u64,
    /// The length of the range.
    pub len_bytes: u64,
    /// The destination, in the address space of `device`.
    pub into: *mut c_void,
    /// -1 for host memory, else the number of a CUDA GPU.
    pub device: i32,
}

/// Parses the C text `location` as a location.
///
/// # Safety
/// Unless it is NULL, `location` is a text.
pub unsafe fn location_at(location: *const c_char) -> Result<Location> {
    // SAFETY: this function's contract.
    match unsafe { abi::text(location) } {
        Some(text) => Location::parse_os(text),
        None => invalid("the location is NULL; give a path or a URI"),
    }
}

/// Returns the `len_bytes` bytes at `into`, or `None` if they cannot exist.
///
/// # Safety
/// Otherwise they are allocated, and nothing else uses them while the result is used.
pub unsafe fn memory<'a>(into: *mut c_void, len_bytes: u64) -> Option<&'a mut [u8]> {
    let len = usize::try_from(len_bytes).ok().filter(|&len| isize::try_from(len).is_ok())?;
    match len {
        0 => Some(&mut []),
        _ if into.is_null() || into.addr().checked_add(len).is_none() => None,
        // SAFETY: not NULL and not too long; the rest is this function's contract.
        _ => Some(unsafe { std::slice::from_raw_parts_mut(into.cast(), len) }),
    }
}

/// Returns the loader's request for `range`.
///
/// # Safety
/// As for [`ringload_read`](super::ringload_read).
pub unsafe fn request<'a>(range: &RingloadRange) -> Result<ReadRequest<'a>> {
    // SAFETY: this function's contract.
    let location = unsafe { location_at(range.location) }?;
    match u32::try_from(range.device) {
        // SAFETY: this function's contract.
        Ok(ordinal) => Ok(unsafe {
            let address = range.into.addr() as u64;
            ReadRequest::on_device(location, range.offset_bytes, ordinal, address, range.len_bytes)
        }),
        // SAFETY: this function's contract.
        Err(_) if range.device == -1 => match unsafe { memory(range.into, range.len_bytes) } {
            Some(into) => Ok(ReadRequest::new(location, range.offset_bytes, into)),
            None => invalid("the destination of a range is NULL or exceeds the address space"),
        },
        Err(_) => invalid(format!(
            "{} is not a device; use -1 for host memory, or the number of a GPU",
            range.device
        )),
    }
}
