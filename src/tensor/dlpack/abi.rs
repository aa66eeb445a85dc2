//! The structures of DLPack, as its header declares them.

use crate::options::Device;
use std::ffi::c_void;

/// The version of DLPack that declares these structures.
pub const VERSION: DlVersion = DlVersion { major: 1, minor: 1 };

/// A flag: the consumer must not write to the tensor.
pub const FLAG_READ_ONLY: u64 = 1;

/// A flag: the tensor is a copy that nobody else has.
pub const FLAG_IS_COPIED: u64 = 1 << 1;

const CPU: i32 = 1;
const CUDA: i32 = 2;

/// `DLPackVersion`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlVersion {
    /// Major versions differ in the structures.
    pub major: u32,
    /// Minor versions add values to enumerations.
    pub minor: u32,
}

/// `DLDevice`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlDevice {
    /// `DLDeviceType`: 1 is host memory, 2 is CUDA.
    pub device_type: i32,
    /// The ordinal of the GPU; 0 for host memory.
    pub device_id: i32,
}

impl From<Device> for DlDevice {
    fn from(device: Device) -> Self {
        match device {
            Device::Host => Self { device_type: CPU, device_id: 0 },
            Device::Cuda(ordinal) => {
                // No machine has 2^31 GPUs.
                Self { device_type: CUDA, device_id: i32::try_from(ordinal).unwrap_or(i32::MAX) }
            }
        }
    }
}

/// `DLDataType`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlDataType {
    /// `DLDataTypeCode`.
    pub code: u8,
    /// The bits of one element.
    pub bits: u8,
    /// The number of values of an element: 1, or 2 for two F4 in one byte.
    pub lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
#[derive(Debug)]
pub struct DlTensor {
    /// The address of the first element; null if there is none.
    pub data: *mut c_void,
    /// The device that has the elements.
    pub device: DlDevice,
    /// The number of dimensions.
    pub ndim: i32,
    /// The type of the elements.
    pub dtype: DlDataType,
    /// The number of elements by dimension.
    pub shape: *mut i64,
    /// The distance of neighbours by dimension, in elements.
    pub strides: *mut i64,
    /// The offset of the first element from `data`: always 0.
    pub byte_offset: u64,
}

/// `DLManagedTensor`: the structure before DLPack 1.0.
#[repr(C)]
#[derive(Debug)]
pub struct DlManagedTensor {
    /// The tensor.
    pub dl_tensor: DlTensor,
    /// Used by the deleter.
    pub manager_ctx: *mut c_void,
    /// Releases the tensor; to be called once, with this structure.
    pub deleter: Option<unsafe extern "C" fn(*mut DlManagedTensor)>,
}

/// `DLManagedTensorVersioned`: the structure from DLPack 1.0 on.
#[repr(C)]
#[derive(Debug)]
pub struct DlManagedTensorVersioned {
    /// The version of the structure.
    pub version: DlVersion,
    /// Used by the deleter.
    pub manager_ctx: *mut c_void,
    /// Releases the tensor; to be called once, with this structure.
    pub deleter: Option<unsafe extern "C" fn(*mut DlManagedTensorVersioned)>,
    /// [`FLAG_READ_ONLY`], [`FLAG_IS_COPIED`].
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DlTensor,
}
