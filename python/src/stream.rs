//! A load, as an iterator of tensors.
//!
//! What is at hand is given out without giving the interpreter up, which is most of small tensors. To
//! wait, the load's `futures::Stream` is polled with a waker that any number of threads wait on, none
//! of them holding the load: so it can be closed at any time.

use crate::ending;
use crate::error::raised;
use crate::tensor::Tensor;
use crate::waiting::SLICE;
use futures_core::Stream as _;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringload::internals::ForkGuard;
use ringload::{Checkpoint, Error, ErrorKind, Progress, Summary, TensorStream};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

/// The tensors of a load, as they complete.
///
/// An iterator of `Tensor`. It may be used from several threads, each tensor goes to one of them.
/// Closing it, from any thread, stops the load and ends every wait; tensors stay valid.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Stream {
    shared: ForkGuard<Arc<Shared>>,
    checkpoint: Arc<Checkpoint>,
    progress: Progress,
    tensor_count: usize,
}

/// What all threads that use a stream share.
pub(crate) struct Shared {
    load: Mutex<Load>,
    news: Arc<News>,
}

enum Load {
    Running(Box<TensorStream>),
    /// With what it had done by then.
    Closed(Box<Summary>),
}

impl Load {
    /// The load, unless it was closed.
    fn running(&mut self) -> Option<&mut TensorStream> {
        match self {
            Self::Running(stream) => Some(stream),
            Self::Closed(_) => None,
        }
    }
}

/// Wakes the threads that wait for the next tensor.
#[derive(Default)]
struct News {
    /// How often there was something to look at.
    count: Mutex<u64>,
    came: Condvar,
}

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.tell();
    }
}

impl News {
    fn tell(&self) {
        *lock(&self.count) += 1;
        self.came.notify_all();
    }

    fn count(&self) -> u64 {
        *lock(&self.count)
    }

    /// Waits until there is more than what was `seen`, at most a slice.
    fn wait(&self, seen: u64) {
        let count = lock(&self.count);
        drop(self.came.wait_timeout_while(count, SLICE, |count| *count == seen));
    }
}

/// The next tensor, or why there is none.
enum Next {
    Tensor(ringload::Tensor),
    Error(Error),
    End,
    /// Not yet.
    Later,
}

impl Shared {
    /// What is at hand, without waiting for anything: not for other threads either.
    fn at_hand(&self) -> Option<ringload::Tensor> {
        match self.load.try_lock() {
            Ok(mut load) => load.running()?.at_hand(),
            Err(TryLockError::Poisoned(load)) => load.into_inner().running()?.at_hand(),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for the next tensor, at most a slice.
    fn wait(&self) -> Next {
        let seen = self.news.count();
        let next = self.poll();
        if matches!(next, Next::Later) {
            self.news.wait(seen);
        }
        next
    }

    fn poll(&self) -> Next {
        let waker = Waker::from(Arc::clone(&self.news));
        let mut load = lock(&self.load);
        let Some(stream) = load.running() else { return Next::End };
        match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(Ok(tensor))) => Next::Tensor(tensor),
            Poll::Ready(Some(Err(error))) => Next::Error(error),
            Poll::Ready(None) => Next::End,
            Poll::Pending => Next::Later,
        }
    }

    /// Stops the load, and waits until nothing of it is in flight.
    pub(crate) fn close(&self) {
        let mut load = lock(&self.load);
        if let Some(stream) = load.running() {
            *load = Load::Closed(Box::new(stream.summary()));
        }
        drop(load);
        self.news.tell();
    }

    fn summary(&self) -> Summary {
        match &*lock(&self.load) {
            Load::Running(stream) => stream.summary(),
            Load::Closed(summary) => Summary::clone(summary),
        }
    }
}

impl Stream {
    /// Of a load that was just started.
    pub(crate) fn new(stream: TensorStream) -> Self {
        let (progress, tensor_count) = (stream.progress(), stream.tensor_count());
        let checkpoint = Arc::clone(stream.checkpoint());
        let shared = Arc::new(Shared {
            load: Mutex::new(Load::Running(Box::new(stream))),
            news: Arc::default(),
        });
        ending::remember(Arc::downgrade(&shared));
        Self { shared: ForkGuard::new(shared), checkpoint, progress, tensor_count }
    }

    fn shared(&self, py: Python<'_>) -> PyResult<&Arc<Shared>> {
        self.shared.get().ok_or_else(|| {
            let sentence = "this stream was started before the process forked, and its threads are \
                            not in this one; start a stream of its own";
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
        let shared = self.shared(py)?;
        if let Some(tensor) = shared.at_hand() {
            return Ok(Some(Tensor::new(tensor)));
        }
        loop {
            match py.detach(|| shared.wait()) {
                Next::Tensor(tensor) => return Ok(Some(Tensor::new(tensor))),
                Next::Error(error) => return Err(raised(py, &error)),
                Next::End => return Ok(None),
                Next::Later => {}
            }
            if let Err(signal) = py.check_signals() {
                py.detach(|| shared.close());
                return Err(signal);
            }
        }
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    /// Stops the load, from any thread, as often as you like. Whoever waits for a tensor gets none.
    fn close(&self, py: Python<'_>) {
        if let Some(shared) = self.shared.get() {
            py.detach(|| shared.close());
        }
    }

    /// Bytes of all tensors of the load.
    #[getter]
    fn total_bytes(&self) -> u64 {
        self.progress.total_bytes()
    }

    /// Bytes of the tensors handed out so far.
    #[getter]
    fn done_bytes(&self) -> u64 {
        self.progress.done_bytes()
    }

    /// How many tensors it gives in all.
    #[getter]
    fn tensor_count(&self) -> usize {
        self.tensor_count
    }

    /// What was done so far, by name; final once the stream has ended.
    fn summary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shared = self.shared(py)?;
        let summary = py.detach(|| shared.summary());
        as_dict(py, &summary)
    }

    /// The `__metadata__` of the checkpoint's files; where two have the same key, the first one's value.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.checkpoint.metadata().clone()
    }

    fn __repr__(&self) -> String {
        let (done, total) = (self.done_bytes(), self.total_bytes());
        format!("<ringload.Stream: {} tensors, {done} of {total} bytes>", self.tensor_count)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Stopping a load takes as long as its storage needs to answer: not to hold others up.
        if let Some(shared) = self.shared.get().cloned() {
            let close = || shared.close();
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
    dict.set_item("verified_device_bytes", summary.verified_device_bytes)?;
    dict.set_item("cached_bytes", summary.cached_bytes)?;
    dict.set_item("cache_left_out_bytes", summary.cache_left_out_bytes)?;
    dict.set_item("cache_trouble", summary.cache_trouble.clone())?;
    Ok(dict)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
