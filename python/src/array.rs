//! Tensors in host memory for numpy, by its array interface.
//!
//! numpy imports DLPack since version 1.23, but makes writable arrays of it only since 2.1. The
//! [array interface](https://numpy.org/doc/stable/reference/arrays.interface.html) gives writable
//! arrays in every version. An array of numpy refers to the object that has the interface, which is
//! [`Array`], and so keeps the memory of the tensor.

use crate::capsule::exported;
use crate::error::buffer_error;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use ringload::dlpack::{DlDataType, Export, Exporting};
use ringload::internals::{ForkGuard, Mutex};

/// The version of the array interface.
const VERSION: u32 = 3;
/// The address of arrays without elements, of which nothing is read. numpy does not take 0.
const NO_ELEMENTS: u64 = 64;

/// The memory of a tensor as `numpy.asarray` takes it. It keeps the memory alive.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Array {
    address: u64,
    is_read_only: bool,
    kind: String,
    shape: Vec<i64>,
    /// Locked by nobody; in a forked child it is not released.
    _export: Mutex<ForkGuard<Export>>,
}

impl Array {
    /// The memory of `tensor`; with `as_integers`, its elements are integers of the same width.
    pub(crate) fn new(
        py: Python<'_>,
        tensor: &ringload::Tensor,
        as_integers: bool,
    ) -> PyResult<Self> {
        if !tensor.device().is_host() {
            let (name, device) = (tensor.name(), tensor.device());
            let sentence = format!("tensor {name:?} is on {device}, not in host memory");
            return Err(buffer_error(sentence));
        }
        let export = exported(py, tensor, Exporting { as_integers, copy: None })?;
        let Some(kind) = kind(export.dtype()) else {
            let (name, dtype) = (tensor.name(), tensor.dtype());
            let sentence =
                format!("the array interface has no type for tensor {name:?} of {dtype}");
            return Err(buffer_error(sentence));
        };
        Ok(Self {
            address: if export.address() == 0 { NO_ELEMENTS } else { export.address() },
            is_read_only: export.is_read_only(),
            kind,
            shape: export.shape().to_vec(),
            _export: Mutex::new(ForkGuard::new(export)),
        })
    }
}

#[pymethods]
impl Array {
    /// The type, shape and address of the elements, as numpy defines this attribute.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", VERSION)?;
        interface.set_item("typestr", &self.kind)?;
        interface.set_item("shape", PyTuple::new(py, &self.shape)?)?;
        interface.set_item("data", (self.address, self.is_read_only))?;
        Ok(interface)
    }
}

/// The type in numpy's notation, such as `<f4`; `None` for a type that it does not have.
fn kind(dtype: DlDataType) -> Option<String> {
    let bytes = dtype.bits / 8;
    let kind = match dtype.code {
        0 => 'i',
        1 => 'u',
        2 => 'f',
        5 => 'c',
        6 => 'b',
        _ => return None,
    };
    let order = if bytes == 1 { '|' } else { '<' };
    Some(format!("{order}{kind}{bytes}"))
}
