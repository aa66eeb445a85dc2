//! What a C program is given of a tensor.

use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Tensor;
use std::ffi::{CString, c_char, c_void};
use std::ptr;

/// A tensor. What it points to stays until it is released.
#[derive(Debug)]
#[repr(C)]
pub struct RingloadTensor {
    /// Its name, in UTF-8.
    pub name: *const c_char,
    /// The type of its elements, as safetensors calls it: `F32`, `BF16`, `F8_E4M3`.
    pub dtype: *const c_char,
    /// The sizes of its dimensions, the outermost first; NULL for a scalar.
    pub shape: *const u64,
    /// How many dimensions it has.
    pub dimensions: usize,
    /// Where its elements are, row-major and little-endian, in the address space of its device.
    pub address: u64,
    /// How many bytes they take.
    pub len_bytes: u64,
    /// -1 for host memory, else the number of the CUDA GPU.
    pub device: i32,
    /// What ringload keeps of it.
    pub owner: *mut c_void,
}

impl RingloadTensor {
    /// What is left of a tensor that was released.
    pub fn none() -> Self {
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

/// A tensor in the hands of a C program, and the texts and numbers it was told of it.
pub struct Owned {
    tensor: Tensor,
    name: CString,
    dtype: CString,
    shape: Vec<u64>,
}

impl Owned {
    pub fn new(tensor: Tensor) -> Self {
        // A zero byte would end a name: what C programs see of it then is up to there.
        let name = tensor.name().split('\0').next().unwrap_or_default();
        Self {
            name: CString::new(name).unwrap_or_default(),
            dtype: CString::new(tensor.dtype().to_string()).unwrap_or_default(),
            shape: tensor.shape().iter().map(|&size| size as u64).collect(),
            tensor,
        }
    }

    /// What a C program is told of it, which it holds as `owner`.
    pub fn told(&self, owner: *mut c_void) -> RingloadTensor {
        let device = self.tensor.device().ordinal();
        RingloadTensor {
            name: self.name.as_ptr(),
            dtype: self.dtype.as_ptr(),
            shape: if self.shape.is_empty() { ptr::null() } else { self.shape.as_ptr() },
            dimensions: self.shape.len(),
            address: self.tensor.address(),
            len_bytes: self.tensor.len_bytes() as u64,
            // Numbers of GPUs are small.
            device: device.map_or(-1, |ordinal| i32::try_from(ordinal).unwrap_or(i32::MAX)),
            owner,
        }
    }

    /// Copies its elements to host memory.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where `into` is not as long; what a GPU's driver says.
    pub fn copy_to(&self, into: &mut [u8]) -> Result<()> {
        if into.len() != self.tensor.len_bytes() {
            let sentence = format!(
                "{} has {} bytes and there is room for {}; give as much as it has",
                self.tensor.name(),
                self.tensor.len_bytes(),
                into.len()
            );
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        self.tensor.copy_to(into)
    }
}
