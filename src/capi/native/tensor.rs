//! Tensors as C sees them.

use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Tensor;
use std::ffi::{CString, c_char, c_void};
use std::ptr;

/// A tensor. Its pointers are valid until it is released.
#[derive(Debug)]
#[repr(C)]
pub struct RingloadTensor {
    /// The name, in UTF-8.
    pub name: *const c_char,
    /// The type of the elements, as safetensors names it: `F32`, `BF16`, `F8_E4M3`.
    pub dtype: *const c_char,
    /// The sizes of the dimensions, the outermost first. NULL for a scalar.
    pub shape: *const u64,
    /// The number of dimensions.
    pub dimensions: usize,
    /// The address of the elements in the memory of the device. They are row-major and
    /// little-endian.
    pub address: u64,
    /// The length of the elements in bytes.
    pub len_bytes: u64,
    /// -1 for host memory, else the number of the CUDA GPU.
    pub device: i32,
    /// Used by ringload.
    pub owner: *mut c_void,
}

impl RingloadTensor {
    /// Returns the value of a tensor that was released.
    pub fn released() -> Self {
        Self {
            name: ptr::null(),
            dtype: ptr::null(),
            shape: ptr::null(),
            dimensions: 0,
            address: 0,
            len_bytes: 0,
            device: -1,
            owner: ptr::null_mut(),
        }
    }
}

/// A tensor that a C program holds, with the texts and numbers that it points to.
pub struct ExportedTensor {
    tensor: Tensor,
    name: CString,
    dtype: CString,
    shape: Vec<u64>,
}

impl ExportedTensor {
    /// Prepares `tensor` for C.
    pub fn new(tensor: Tensor) -> Self {
        // C programs see a name up to the first zero byte.
        let name = tensor.name().split('\0').next().unwrap_or_default();
        Self {
            name: CString::new(name).unwrap_or_default(),
            dtype: CString::new(tensor.dtype().to_string()).unwrap_or_default(),
            shape: tensor.shape().iter().map(|&size| size as u64).collect(),
            tensor,
        }
    }

    /// Returns the tensor as C sees it, with the handle `owner`.
    pub fn as_c(&self, owner: *mut c_void) -> RingloadTensor {
        let device = self.tensor.device().ordinal();
        RingloadTensor {
            name: self.name.as_ptr(),
            dtype: self.dtype.as_ptr(),
            shape: if self.shape.is_empty() { ptr::null() } else { self.shape.as_ptr() },
            dimensions: self.shape.len(),
            address: self.tensor.address(),
            len_bytes: self.tensor.len_bytes() as u64,
            device: device.map_or(-1, |ordinal| i32::try_from(ordinal).unwrap_or(i32::MAX)),
            owner,
        }
    }

    /// Copies the elements to host memory.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `into` has another length, and errors of the
    /// GPU's driver.
    pub fn copy_to(&self, into: &mut [u8]) -> Result<()> {
        if into.len() != self.tensor.len_bytes() {
            let sentence = format!(
                "{} has {} bytes and the destination has {}; both must be equal",
                self.tensor.name(),
                self.tensor.len_bytes(),
                into.len()
            );
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        self.tensor.copy_to(into)
    }
}
