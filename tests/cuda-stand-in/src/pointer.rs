//! The attributes of addresses.

use crate::call::{Call, answer};
use crate::result::{CUDA_ERROR_INVALID_VALUE, CUresult};
use crate::state::State;
use std::ffi::{c_int, c_uint, c_void};

/// The context that the memory belongs to.
pub const CU_POINTER_ATTRIBUTE_CONTEXT: u32 = 1;
/// Host or device.
pub const CU_POINTER_ATTRIBUTE_MEMORY_TYPE: u32 = 2;
/// The address for the device.
pub const CU_POINTER_ATTRIBUTE_DEVICE_POINTER: u32 = 3;
/// The address for the host.
pub const CU_POINTER_ATTRIBUTE_HOST_POINTER: u32 = 4;
/// Whether the memory is managed.
pub const CU_POINTER_ATTRIBUTE_IS_MANAGED: u32 = 8;
/// The device that the memory belongs to.
pub const CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: u32 = 9;
/// The start of the allocation.
pub const CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: u32 = 11;
/// The size of the allocation.
pub const CU_POINTER_ATTRIBUTE_RANGE_SIZE: u32 = 12;
/// Whether the memory is mapped.
pub const CU_POINTER_ATTRIBUTE_MAPPED: u32 = 13;

/// Memory of the host, registered.
pub const CU_MEMORYTYPE_HOST: c_uint = 1;
/// Memory of a device.
pub const CU_MEMORYTYPE_DEVICE: c_uint = 2;

/// Memory that the driver knows.
struct Known {
    context: usize,
    start: u64,
    bytes: u64,
    kind: c_uint,
}

fn known(state: &State, address: u64) -> Option<Known> {
    let allocation = state.allocation_at(address).map(|(start, allocation)| Known {
        context: allocation.owned.context,
        start,
        bytes: allocation.bytes as u64,
        kind: CU_MEMORYTYPE_DEVICE,
    });
    let registration = || {
        let (start, registration) = state.registration_at(address)?;
        let (context, bytes) = (registration.owned.context, registration.bytes);
        Some(Known { context, start, bytes, kind: CU_MEMORYTYPE_HOST })
    };
    allocation.or_else(registration)
}

/// Returns an attribute of the memory at `pointer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttribute(
    data: *mut c_void,
    attribute: u32,
    pointer: u64,
) -> CUresult {
    answer(|| {
        let call = Call::free("cuPointerGetAttribute", &[attribute.into()])?;
        let known = known(&call.state, pointer).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if data.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let device = call.state.contexts.get(&known.context).map_or(0, |context| context.device);
        let is_host = known.kind == CU_MEMORYTYPE_HOST;
        // SAFETY: the driver's contract: room for a value of the attribute's type.
        unsafe {
            match attribute {
                CU_POINTER_ATTRIBUTE_CONTEXT => data.cast::<usize>().write(known.context),
                CU_POINTER_ATTRIBUTE_MEMORY_TYPE => data.cast::<c_uint>().write(known.kind),
                CU_POINTER_ATTRIBUTE_DEVICE_POINTER => data.cast::<u64>().write(pointer),
                CU_POINTER_ATTRIBUTE_HOST_POINTER if is_host => data.cast::<u64>().write(pointer),
                CU_POINTER_ATTRIBUTE_IS_MANAGED => data.cast::<c_uint>().write(0),
                CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => data.cast::<c_int>().write(device),
                CU_POINTER_ATTRIBUTE_RANGE_START_ADDR => data.cast::<u64>().write(known.start),
                CU_POINTER_ATTRIBUTE_RANGE_SIZE => data.cast::<u64>().write(known.bytes),
                CU_POINTER_ATTRIBUTE_MAPPED => data.cast::<c_uint>().write(1),
                _ => return Err(CUDA_ERROR_INVALID_VALUE),
            }
        }
        Ok(())
    })
}
