//! A loaded tensor, for any framework that knows DLPack.

use crate::array::Array;
use crate::capsule;
use crate::error::buffer_error;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use ringload::dlpack::Exporting;
use ringload::internals::ForkGuard;

/// A loaded tensor. It keeps its memory alive, also after the load has ended.
///
/// Frameworks import it by DLPack: `torch.from_dlpack(tensor)`. It can be used from several threads.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Tensor {
    tensor: ForkGuard<ringload::Tensor>,
}

impl Tensor {
    pub(crate) fn new(tensor: ringload::Tensor) -> Self {
        Self { tensor: ForkGuard::new(tensor) }
    }

    fn tensor(&self) -> PyResult<&ringload::Tensor> {
        // A forked child has the memory, too; only the parent releases it.
        self.tensor.get_in_any_process().ok_or_else(|| buffer_error("the tensor was released"))
    }
}

#[pymethods]
impl Tensor {
    /// The tensor's name.
    #[getter]
    pub(crate) fn name(&self) -> PyResult<&str> {
        Ok(self.tensor()?.name())
    }

    /// The type of the elements in the notation of safetensors: `"BF16"`.
    #[getter]
    fn dtype(&self) -> PyResult<String> {
        Ok(self.tensor()?.dtype().to_string())
    }

    /// The dimensions, outermost first; empty for a scalar.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.tensor()?.shape())
    }

    /// The tensor's device: `"cpu"` or `"cuda:N"`.
    #[getter]
    fn device(&self) -> PyResult<String> {
        Ok(self.tensor()?.device().to_string())
    }

    /// The length in bytes.
    #[getter]
    fn nbytes(&self) -> PyResult<usize> {
        Ok(self.tensor()?.len_bytes())
    }

    /// The address of the first byte in the address space of the tensor's device.
    #[getter]
    fn address(&self) -> PyResult<u64> {
        Ok(self.tensor()?.address())
    }

    /// Exports the tensor by the DLPack protocol (array API 2023.12).
    ///
    /// The tensor is only copied if its address is not aligned for its type, which depends on the file.
    ///
    /// Raises:
    ///     BufferError: when the tensor cannot be exported as requested.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The tensor is complete: no stream has to wait for it.
        let _ = stream;
        if let Some(wanted) = dl_device
            && wanted != self.__dlpack_device__()?
        {
            return Err(buffer_error(format!(
                "tensor {:?} is on {}; load it to the device that it is requested on",
                self.name()?,
                self.device()?
            )));
        }
        let how = Exporting { as_integers: false, copy };
        capsule::of_tensor(py, self.tensor()?, how, is_versioned(max_version))
    }

    /// The tensor's device in DLPack's notation: `(1, 0)` is host memory, `(2, n)` is GPU `n`.
    fn __dlpack_device__(&self) -> PyResult<(i32, i32)> {
        let device = self.tensor()?.dl_device();
        Ok((device.device_type, device.device_id))
    }

    /// Exports the tensor as `__dlpack__` does, with its elements as integers of the same width, which
    /// every framework supports: U8, I16, I32 or I64; elements narrower than a byte as bytes. The
    /// caller reinterprets them.
    ///
    /// Raises:
    ///     BufferError: when the tensor cannot be exported as requested.
    #[pyo3(signature = (*, max_version=None))]
    fn dlpack_as_integers<'py>(
        &self,
        py: Python<'py>,
        max_version: Option<(u32, u32)>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let how = Exporting { as_integers: true, copy: None };
        capsule::of_tensor(py, self.tensor()?, how, is_versioned(max_version))
    }

    /// Returns the memory of a tensor on the host for `numpy.asarray`, which makes an array that may
    /// be written to in every version of numpy.
    ///
    /// Args:
    ///     as_integers: whether the elements are integers of the same width, or bytes, as
    ///         `dlpack_as_integers` has them.
    ///
    /// Raises:
    ///     BufferError: when numpy has no such elements, or the tensor is on a GPU.
    #[pyo3(signature = (*, as_integers=false))]
    fn array(&self, py: Python<'_>, as_integers: bool) -> PyResult<Array> {
        Array::new(py, self.tensor()?, as_integers)
    }

    fn __repr__(&self) -> PyResult<String> {
        let tensor = self.tensor()?;
        Ok(format!(
            "<ringload.Tensor {:?}: {} {:?} on {}>",
            tensor.name(),
            tensor.dtype(),
            tensor.shape(),
            tensor.device()
        ))
    }
}

/// Whether a consumer of this version of DLPack supports the structure of DLPack 1.
fn is_versioned(max_version: Option<(u32, u32)>) -> bool {
    max_version.is_some_and(|(major, _)| major >= 1)
}
