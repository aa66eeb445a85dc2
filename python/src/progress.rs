//! The progress of a load, for the progress bar and for programs that watch a load.

use pyo3::prelude::*;
use ringload::internals::progress_part;

/// Shows the progress of loads while they run, from any thread. Make one, pass it as `progress`, and
/// ask it.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Progress(pub(crate) ringload::Progress);

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Self {
        Self(ringload::Progress::new())
    }

    /// The bytes that have arrived, while they are received. Never decreases.
    #[getter]
    fn done_bytes(&self) -> u64 {
        self.0.done_bytes()
    }

    /// The bytes of all tensors of the load; 0 until the headers were read.
    #[getter]
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes()
    }

    /// The bytes of headers that were read. They do not count as bytes of tensors.
    #[getter]
    fn header_bytes(&self) -> u64 {
        self.0.header_bytes()
    }

    /// Adds the bytes of a load that another part of the package makes.
    ///
    /// Returns:
    ///     The part of that load, which is told of what has arrived.
    fn part(&self, total_bytes: u64) -> ProgressPart {
        ProgressPart(progress_part(&self.0, total_bytes))
    }

    fn __repr__(&self) -> String {
        format!("<ringload.Progress: {} of {} bytes>", self.done_bytes(), self.total_bytes())
    }
}

/// The part of one load in a `Progress`.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct ProgressPart(ringload::internals::ProgressPart);

#[pymethods]
impl ProgressPart {
    /// Counts bytes that have arrived.
    fn deliver(&self, nbytes: u64) {
        self.0.deliver(nbytes);
    }
}

/// The loader, whose calls `progress` counts, if there is one.
pub(crate) fn watched(loader: ringload::Loader, progress: Option<&Progress>) -> ringload::Loader {
    match progress {
        Some(progress) => loader.progress(&progress.0),
        None => loader,
    }
}
