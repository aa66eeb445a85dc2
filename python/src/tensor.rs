//! A loaded tensor, for any framework that knows DLPack.

use crate::capsule;
use crate::error::buffer_error;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use ringload::dlpack::Exporting;
use ringload::internals::ForkGuard;

/// A loaded tensor. It keeps its memory, whatever becomes of the load that it is from.
///
/// It is handed to a framework by DLPack: `torch.from_dlpack(tensor)`. Immutable, and safe to use from
/// several threads.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Tensor {
    tensor: ForkGuard<ringload::Tensor>,
}

impl Tensor {
    pub(crate) fn new(tensor: ringload::Tensor) -> Self {
        Self { tensor: ForkGuard::new(tensor) }
    }

    fn tensor(&self) -> PyResult<&ringload::Tensor> {
        // Its memory is there in a child process, too; only giving it back is the parent's.
        self.tensor
            .get_in_any_process()
            .ok_or_else(|| buffer_error("the tensor is not there any more"))
    }
}

#[pymethods]
impl Tensor {
    /// Its name.
    #[getter]
    fn name(&self) -> PyResult<&str> {
        Ok(self.tensor()?.name())
    }

    /// The type of its elements, as safetensors calls it: `"BF16"`.
    #[getter]
    fn dtype(&self) -> PyResult<String> {
        Ok(self.tensor()?.dtype().to_string())
    }

    /// Its dimensions, outermost first; empty for a scalar.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.tensor()?.shape())
    }

    /// Where it is: `"cpu"` or `"cuda:N"`.
    #[getter]
    fn device(&self) -> PyResult<String> {
        Ok(self.tensor()?.device().to_string())
    }

    /// How many bytes it has.
    #[getter]
    fn nbytes(&self) -> PyResult<usize> {
        Ok(self.tensor()?.len_bytes())
    }

    /// The address of its first byte, in its device's address space.
    #[getter]
    fn address(&self) -> PyResult<u64> {
        Ok(self.tensor()?.address())
    }

    /// The tensor for a framework, by the DLPack protocol (array API 2023.12).
    ///
    /// It is not copied unless its address is not aligned for its type, as a file may have it.
    ///
    /// Raises:
    ///     BufferError: for what cannot be handed out as asked for.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // What was handed out is complete: no stream has to wait for it.
        let _ = stream;
        if let Some(wanted) = dl_device
            && wanted != self.__dlpack_device__()?
        {
            return Err(buffer_error(format!(
                "tensor {:?} is on {}; load it to the device that it is wanted on",
                self.name()?,
                self.device()?
            )));
        }
        let how = Exporting { as_integers: false, copy };
        capsule::of_tensor(py, self.tensor()?, how, is_versioned(max_version))
    }

    /// Where it is, as DLPack says it: `(1, 0)` is host memory, `(2, n)` GPU `n`.
    fn __dlpack_device__(&self) -> PyResult<(i32, i32)> {
        let device = self.tensor()?.dl_device();
        Ok((device.device_type, device.device_id))
    }

    /// The tensor as `__dlpack__` gives it, its elements as integers of the same width, which every
    /// framework knows: U8, I16, I32 and I64; bytes, where they are narrower than one. It is for the
    /// framework then to look at them as what they are.
    ///
    /// Raises:
    ///     BufferError: for what cannot be handed out as asked for.
    #[pyo3(signature = (*, max_version=None))]
    fn dlpack_as_integers<'py>(
        &self,
        py: Python<'py>,
        max_version: Option<(u32, u32)>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let how = Exporting { as_integers: true, copy: None };
        capsule::of_tensor(py, self.tensor()?, how, is_versioned(max_version))
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

/// Whether a consumer of this version of DLPack knows the structure of 1.0.
fn is_versioned(max_version: Option<(u32, u32)>) -> bool {
    max_version.is_some_and(|(major, _)| major >= 1)
}
