//! A checkpoint of local files whose tensors are views of private mappings.

use crate::description::{described, found};
use crate::error::raised;
use crate::interrupts::SIGNAL_INTERVAL;
use crate::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use ringload::TensorInfo;
use ringload::internals::MappedCheckpoint;
use std::collections::BTreeMap;
use std::ops::Range;

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

    fn read(&self, py: Python<'_>, tensor: &ringload::Tensor, bytes: Range<u64>) -> PyResult<()> {
        match self.mapped.expect(tensor, bytes.clone()) {
            true => until(py, || self.mapped.wait(tensor, bytes.clone(), SIGNAL_INTERVAL)),
            false => Ok(()),
        }
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

    /// Returns a tensor. Tensors that are requested in the order of the file are read ahead by other
    /// threads. If they are reading this one, the call waits until they have.
    ///
    /// Args:
    ///     name: the name of the tensor.
    ///     is_used: whether the program will use the tensor. If not, nothing is read.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has this name.
    #[pyo3(signature = (name, *, is_used=true))]
    fn tensor(&self, py: Python<'_>, name: &str, is_used: bool) -> PyResult<Tensor> {
        let tensor = self.mapped.view(name).map_err(|error| raised(py, &error))?;
        if is_used {
            self.read(py, &tensor, 0..u64::MAX)?;
        }
        Ok(Tensor::new(tensor))
    }

    /// Says that the program will use bytes of a tensor, as `tensor` does it for all bytes.
    ///
    /// Args:
    ///     name: the name of the tensor.
    ///     start: the first byte, counted from the beginning of the tensor.
    ///     count: the number of bytes.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has this name.
    fn expect(&self, py: Python<'_>, name: &str, start: u64, count: u64) -> PyResult<()> {
        let tensor = self.mapped.view(name).map_err(|error| raised(py, &error))?;
        self.read(py, &tensor, start..start.saturating_add(count))
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

    /// Waits until other threads have read everything that was requested.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        until(py, || self.mapped.wait_for_all(SIGNAL_INTERVAL))
    }

    /// Raises an error if a file was written to since it was opened.
    ///
    /// Raises:
    ///     ChangedError: the message says what changed.
    fn check_unchanged(&self, py: Python<'_>) -> PyResult<()> {
        self.mapped.check_unchanged().map_err(|error| raised(py, &error))
    }
}

/// Repeats a wait of at most [`SIGNAL_INTERVAL`] until it returns true.
fn until(py: Python<'_>, wait: impl Fn() -> bool + Sync) -> PyResult<()> {
    while !py.detach(&wait) {
        py.check_signals()?;
    }
    Ok(())
}
