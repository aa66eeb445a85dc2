//! Host memory registered with the driver: the only kind that asynchronous copies may use.

use crate::call::{Call, answer};
use crate::mapping::{is_mapped, is_writable};
use crate::result::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_OUT_OF_MEMORY, CUresult};
use crate::state::{Owned, State};
use crate::stream;
use std::ffi::{c_uint, c_void};

/// The registration serves every context.
pub const CU_MEMHOSTREGISTER_PORTABLE: c_uint = 1;
/// The memory is only readable, also for the device.
pub const CU_MEMHOSTREGISTER_READ_ONLY: c_uint = 8;
/// The memory is that of a device, such as of a network card, and no memory of the host.
const CU_MEMHOSTREGISTER_IOMEMORY: c_uint = 4;
/// All valid flags.
const FLAGS: c_uint = 0xF;

#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) owned: Owned,
    pub(crate) bytes: u64,
    portable: bool,
}

impl State {
    /// The registration that the address is in, with its first address.
    pub(crate) fn registration_at(&self, address: u64) -> Option<(u64, &Registration)> {
        let (base, registration) = self.registrations.range(..=address).next_back()?;
        (address < base + registration.bytes).then_some((*base, registration))
    }

    /// The first address of the registration that contains the range, or none if no byte of it is
    /// registered. Raises the alarm for a partly registered range and for another context's
    /// registration.
    pub(crate) fn host_range(
        &self,
        function: &str,
        context: usize,
        start: u64,
        bytes: u64,
    ) -> Option<u64> {
        let Some((base, registration)) = self.registration_at(start) else {
            let inside = self.registrations.range(start..start + bytes).next();
            if inside.is_some() {
                alarm!("{function}: host memory begins before the registration that it ends in");
            }
            return None;
        };
        let end = base + registration.bytes;
        if start + bytes > end {
            if self.registrations.contains_key(&end) {
                alarm!("{function}: host memory spans two registrations");
            }
            alarm!("{function}: host memory goes past the end of its registration");
        }
        if registration.owned.context != context && !registration.portable {
            alarm!(
                "{function}: host memory is registered for another context, \
                 without CU_MEMHOSTREGISTER_PORTABLE"
            );
        }
        Some(base)
    }
}

/// Registers host memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostRegister_v2(
    pointer: *mut c_void,
    bytes: usize,
    flags: c_uint,
) -> CUresult {
    answer(|| {
        let mut call = Call::in_context("cuMemHostRegister_v2", &[bytes as u64, flags.into()])?;
        let (start, bytes) = (pointer as u64, bytes as u64);
        let end = start.checked_add(bytes).filter(|end| *end > start && start > 0);
        let valid = flags & !(FLAGS & !CU_MEMHOSTREGISTER_IOMEMORY) == 0;
        let Some(end) = end.filter(|_| valid && is_mapped(start, bytes)) else {
            return Err(CUDA_ERROR_INVALID_VALUE);
        };
        // The driver pins pages for writing, unless the flag says that nobody writes.
        if flags & CU_MEMHOSTREGISTER_READ_ONLY == 0 && !is_writable(start, bytes) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if call.state.allocation_at(start).is_some() {
            alarm!("{}: the range is device memory", call.function);
        }
        let overlaps = call.state.registrations.range(start..end).next().is_some()
            || call.state.registration_at(start).is_some();
        if overlaps {
            alarm!("{}: the range overlaps one that is registered", call.function);
        }
        let pinned: u64 = call.state.registrations.values().map(|one| one.bytes).sum();
        if call.state.orders().pinned_bytes.is_some_and(|most| pinned + bytes > most) {
            return Err(CUDA_ERROR_OUT_OF_MEMORY);
        }
        let portable = flags & CU_MEMHOSTREGISTER_PORTABLE != 0;
        let registration = Registration { owned: Owned::by(call.context), bytes, portable };
        call.state.registrations.insert(start, registration);
        Ok(())
    })
}

/// Ends a registration.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostUnregister(pointer: *mut c_void) -> CUresult {
    answer(|| {
        let mut call = Call::of_context("cuMemHostUnregister", &[]);
        let (function, context, start) = (call.function, call.context, pointer as u64);
        let Some(registration) = call.state.registrations.get_mut(&start) else {
            alarm!("{function}: {start:#x} is not the start of registered memory");
        };
        if registration.owned.context != context && !registration.portable {
            alarm!("{function}: the registration belongs to another context than the current one");
        }
        if !is_mapped(start, registration.bytes) {
            alarm!("{function}: the memory was unmapped before");
        }
        registration.owned.given_up = true;
        let mut call = call.unless_failing()?;
        stream::check_unused(&call.state, function, start);
        call.state.registrations.remove(&start);
        Ok(())
    })
}
