//! A checkpoint of local files whose tensors are views of private mappings.

use crate::description::{described, found};
use crate::error::raised;
use crate::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use ringload::TensorInfo;
use ringload::internals::MappedCheckpoint;
use std::collections::BTreeMap;

/// A checkpoint whose files are mapped. Its tensors are pages of the files until they are written to,
/// which leaves the files as they are. A forked child can use it, too.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Mapped {
    mapped: MappedCheckpoint,
}

impl Mapped {
    pub(crate) fn new(mapped: MappedCheckpoint) -> Self {
        Self { mapped }
    }
}

#[pymethods]
impl Mapped {
    /// Returns the names of the tensors, in the order of the files.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.mapped.checkpoint().tensors().iter().map(TensorInfo::name))
    }

    /// Returns what `Checkpoint.info` does.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has this name.
    fn info<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
        let checkpoint = self.mapped.checkpoint();
        described(py, checkpoint, found(py, checkpoint, name)?)
    }

    /// Returns what `Checkpoint.metadata` does.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.mapped.checkpoint().metadata().clone()
    }

    /// Returns a tensor at once, without reading it. What tensors are requested in the order of the
    /// file is read ahead.
    ///
    /// Args:
    ///     name: the name of the tensor.
    ///     read_ahead: whether the tensor, and what follows it, is to be read by other threads.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has this name.
    #[pyo3(signature = (name, *, read_ahead=true))]
    fn tensor(&self, py: Python<'_>, name: &str, read_ahead: bool) -> PyResult<Tensor> {
        let tensor = match read_ahead {
            true => self.mapped.tensor(name),
            false => self.mapped.view(name),
        };
        tensor.map(Tensor::new).map_err(|error| raised(py, &error))
    }

    /// Says that the program will use bytes of a tensor, so that other threads read them, and what
    /// follows them.
    ///
    /// Args:
    ///     name: the name of the tensor.
    ///     start: the first byte, counted from the beginning of the tensor.
    ///     count: the number of bytes.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has this name.
    fn expect(&self, py: Python<'_>, name: &str, start: u64, count: u64) -> PyResult<()> {
        let end = start.saturating_add(count);
        self.mapped.expect(name, start..end).map_err(|error| raised(py, &error))
    }

    /// Begins to read tensors, in this order, in other threads.
    ///
    /// Args:
    ///     names: the names of the tensors. None: all, in the order of the files.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has one of these names. Then nothing is read.
    #[pyo3(signature = (names=None))]
    fn prefetch(&self, py: Python<'_>, names: Option<Vec<String>>) -> PyResult<()> {
        match names {
            Some(names) => self.mapped.prefetch(&names).map_err(|error| raised(py, &error)),
            None => {
                self.mapped.prefetch_all();
                Ok(())
            }
        }
    }

    /// Returns whether other threads are still reading what was requested.
    fn is_reading(&self) -> bool {
        self.mapped.is_reading()
    }

    /// Raises an error if a file was written to since it was opened.
    ///
    /// Raises:
    ///     ChangedError: the message says what changed.
    fn check_unchanged(&self, py: Python<'_>) -> PyResult<()> {
        self.mapped.check_unchanged().map_err(|error| raised(py, &error))
    }
}
