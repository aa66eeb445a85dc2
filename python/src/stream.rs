//! A load as a Python iterator of tensors.
//!
//! Tensors that have completed are returned without releasing the GIL, which covers most small
//! tensors. Otherwise the calling thread releases the GIL while it waits.

use crate::error::raised;
use crate::interpreter_exit;
use crate::shared_load::{Next, SharedLoad};
use crate::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringload::internals::{BorrowedMemory, ForkGuard};
use ringload::{Checkpoint, Error, ErrorKind, Progress, Summary, TensorStream};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tensors of a load, as they complete.
///
/// An iterator of `Tensor`. Several threads may use it; each tensor goes to one of them. Closing
/// it, from any thread, stops the load and ends all waits. Tensors that were taken stay valid.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Stream {
    load: ForkGuard<Arc<SharedLoad>>,
    checkpoint: Arc<Checkpoint>,
    progress: Progress,
    tensor_count: usize,
    /// The memory that the load reads from, if the tensors are in no file.
    _memory: Option<Arc<BorrowedMemory>>,
}

impl Stream {
    /// Returns the iterator of a load that was just started.
    pub(crate) fn new(stream: TensorStream) -> Self {
        let (progress, tensor_count) = (stream.progress(), stream.tensor_count());
        let checkpoint = Arc::clone(stream.checkpoint());
        let load = Arc::new(SharedLoad::new(stream));
        interpreter_exit::register(Arc::downgrade(&load));
        Self { load: ForkGuard::new(load), checkpoint, progress, tensor_count, _memory: None }
    }

    /// This iterator, of a load that reads from `memory`.
    pub(crate) fn of_memory(mut self, memory: Option<Arc<BorrowedMemory>>) -> Self {
        self._memory = memory;
        self
    }

    fn load(&self, py: Python<'_>) -> PyResult<&Arc<SharedLoad>> {
        self.load.get().ok_or_else(|| {
            let sentence = "this stream was started before the process forked, and its threads do \
                            not run in this process; start another stream here";
            raised(py, &Error::new(ErrorKind::Cancelled, sentence))
        })
    }
}

#[pymethods]
impl Stream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Tensor>> {
        let load = self.load(py)?;
        if let Some(tensor) = load.at_hand() {
            return Ok(Some(Tensor::new(tensor)));
        }
        loop {
            match py.detach(|| load.wait()) {
                Next::Tensor(tensor) => return Ok(Some(Tensor::new(tensor))),
                Next::Error(error) => return Err(raised(py, &error)),
                Next::End => return Ok(None),
                Next::Pending => {}
            }
            if let Err(signal) = py.check_signals() {
                py.detach(|| load.close());
                return Err(signal);
            }
        }
    }

    /// Waits for the end of the load. Returns the tensors that were not taken, by name.
    ///
    /// Raises:
    ///     Error: if the load failed.
    fn rest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let rest = PyDict::new(py);
        while let Some(tensor) = self.__next__(py)? {
            let tensor = Bound::new(py, tensor)?;
            rest.set_item(tensor.get().name()?, &tensor)?;
        }
        Ok(rest)
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    /// Stops the load. Any thread may call this, any number of times. Threads that wait for a
    /// tensor get the end of the iterator.
    fn close(&self, py: Python<'_>) {
        if let Some(load) = self.load.get() {
            py.detach(|| load.close());
        }
    }

    /// The bytes of all tensors of the load.
    #[getter]
    fn total_bytes(&self) -> u64 {
        self.progress.total_bytes()
    }

    /// The bytes that have arrived.
    #[getter]
    fn done_bytes(&self) -> u64 {
        self.progress.done_bytes()
    }

    /// The number of tensors of the load.
    #[getter]
    fn tensor_count(&self) -> usize {
        self.tensor_count
    }

    /// Returns statistics of the load by name. They are final when the stream has ended.
    fn summary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let load = self.load(py)?;
        let summary = py.detach(|| load.summary());
        as_dict(py, &summary)
    }

    /// Returns the `__metadata__` of the checkpoint's files. Where several have the same key, the
    /// first file's value counts.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.checkpoint.metadata().clone()
    }

    /// Returns whether the checkpoint has a tensor of this name, which the load may leave out.
    fn has_tensor(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some()
    }

    fn __repr__(&self) -> String {
        let (done, total) = (self.done_bytes(), self.total_bytes());
        format!("<ringload.Stream: {} tensors, {done} of {total} bytes>", self.tensor_count)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Stopping a load waits for its storage, so other threads get the GIL meanwhile.
        if let Some(load) = self.load.get().cloned() {
            let close = || load.close();
            if Python::try_attach(|py| py.detach(close)).is_none() {
                close();
            }
        }
    }
}

fn as_dict<'py>(py: Python<'py>, summary: &Summary) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let devices: Vec<_> =
        summary.device_bytes.iter().map(|(device, bytes)| (device.to_string(), *bytes)).collect();
    let steps: Vec<_> = summary.downgrades.iter().map(|d| (d.from, d.to, d.why.clone())).collect();
    let verified: Vec<_> =
        summary.verified_against.iter().map(|v| (v.location.to_string(), &v.against)).collect();
    dict.set_item("bytes", summary.bytes)?;
    dict.set_item("tensors", summary.tensors)?;
    dict.set_item("cast_tensors", summary.cast_tensors)?;
    dict.set_item("device_bytes", devices.into_iter().collect::<BTreeMap<_, _>>())?;
    dict.set_item("seconds", summary.seconds)?;
    dict.set_item("engines", summary.engines)?;
    dict.set_item("backend", summary.backend)?;
    dict.set_item("numa_node", summary.numa_node)?;
    dict.set_item("read_bytes", summary.read_bytes.clone())?;
    dict.set_item("memory_limit_bytes", summary.memory_limit_bytes)?;
    dict.set_item("ring_bytes", summary.ring_bytes)?;
    dict.set_item("downgrades", steps)?;
    dict.set_item("retries", summary.retries.clone())?;
    dict.set_item("verified_objects", summary.verified_objects)?;
    dict.set_item("verified_against", verified)?;
    dict.set_item("verified_tensors", summary.verified_tensors)?;
    dict.set_item("verified_device_bytes", summary.verified_device_bytes)?;
    dict.set_item("cached_bytes", summary.cached_bytes)?;
    dict.set_item("cache_left_out_bytes", summary.cache_left_out_bytes)?;
    dict.set_item("cache_warning", summary.cache_warning.clone())?;
    Ok(dict)
}
