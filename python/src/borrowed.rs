//! Memory of arrays of other packages, from which tensors are loaded: that of chunks in Ray's object
//! store.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringload::internals::{BorrowedBytes, BorrowedMemory, DescribedTensor};
use ringload::{Dtype, Result};
use std::ptr::NonNull;

/// A tensor in memory: its name, the name of its type, its shape, and its offset in bytes.
pub(crate) type Described = (String, String, Vec<usize>, u64);

/// The memory of an array, which it keeps alive.
struct ArrayBytes {
    _array: Py<PyAny>,
    bytes: NonNull<[u8]>,
}

// SAFETY: the memory belongs to the array, which any thread may release, and is only read.
unsafe impl Send for ArrayBytes {}
// SAFETY: as above.
unsafe impl Sync for ArrayBytes {}

impl AsRef<[u8]> for ArrayBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory lives as long as the array, and nobody writes to it meanwhile: the Python
        // program is told so (`Loader.in_memory`), as by every package that reads memory of others.
        unsafe { self.bytes.as_ref() }
    }
}

/// The memory of arrays of bytes, one after the other. Each has numpy's array interface, and nobody may
/// write to it as long as the result exists.
///
/// # Errors
/// A `TypeError` for an object that is no contiguous array of bytes.
pub(crate) fn borrowed(arrays: Vec<Bound<'_, PyAny>>) -> PyResult<BorrowedMemory> {
    let bytes = |array: Bound<'_, PyAny>| Ok(Box::new(array_bytes(array)?) as BorrowedBytes);
    Ok(BorrowedMemory::new(arrays.into_iter().map(bytes).collect::<PyResult<_>>()?))
}

fn array_bytes(array: Bound<'_, PyAny>) -> PyResult<ArrayBytes> {
    let interface = array.getattr("__array_interface__")?.cast_into::<PyDict>()?;
    let item = |name: &str| interface.as_any().get_item(name);
    let (kind, shape): (String, Vec<usize>) =
        (item("typestr")?.extract()?, item("shape")?.extract()?);
    let has_strides = interface.get_item("strides")?.is_some_and(|strides| !strides.is_none());
    let (&[len], "|u1", false) = (shape.as_slice(), kind.as_str(), has_strides) else {
        return Err(PyTypeError::new_err("memory is taken as contiguous arrays of uint8"));
    };
    let (address, _): (usize, bool) = item("data")?.extract()?;
    let first = NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling());
    let len = if address == 0 { 0 } else { len };
    Ok(ArrayBytes { _array: array.unbind(), bytes: NonNull::slice_from_raw_parts(first, len) })
}

/// The tensors as the library takes them.
///
/// # Errors
/// For a type that the format does not have.
pub(crate) fn described(tensors: Vec<Described>) -> Result<Vec<DescribedTensor>> {
    let tensor = |(name, dtype, shape, offset_bytes): Described| {
        let dtype: Dtype = dtype.parse()?;
        Ok(DescribedTensor { name, dtype, shape, offset_bytes })
    };
    tensors.into_iter().map(tensor).collect()
}
