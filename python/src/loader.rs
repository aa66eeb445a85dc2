//! The loader: options of loads, and the calls that start loads.

use crate::borrowed::{Described, borrowed, described};
use crate::checkpoint::Checkpoint;
use crate::error::raised;
use crate::interrupts::wait_for;
use crate::options::Options;
use crate::progress::{Progress, watched};
use crate::stream::Stream;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringload::internals::{ForkGuard, Mutex, checkpoint_in_memory, described_checkpoint};
use ringload::{Error, Location, MemoryLimit};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Options of loads. One loader serves any number of loads, from any threads. The state that it
/// keeps between loads (connections, credentials, pinned memory) is made anew in a child process.
///
/// Args: device: "cpu", "cuda", "cuda:N", or a dict from globs of tensor names to devices. The
/// first glob that matches counts; tensors that no glob matches go to host memory. memory_limit:
/// bytes, or text such as "256MiB", "min" (three times the largest tensor, because a loop still
/// holds the last tensor while it waits for the next one) or "none". By default the environment
/// decides. keep: whether the memory limit leaves out the tensors in host memory that the caller
/// holds. Otherwise, holding as many as the limit allows is an error. runai_env: whether to read
/// the variables that only Run:ai's own programs read. dtype: the type that floats are cast to:
/// "f32", "f16" or "bf16", or the type of torch or numpy, such as `torch.bfloat16`. allocation: whether GPU memory is allocated for each "shard" (the
/// default) or each "tensor". tensors: load only tensors whose name matches one of these globs.
/// names: load only the tensors of these names. A name that no tensor has is an error. slices: rules of
/// the parts of tensors to load, as `ringload.load` makes them. variant:
/// read the files of this variant in a directory, such as "fp16". all_files: read every
/// *.safetensors file of a directory, without its index. strict: refuse an index that names a
/// tensor which is not in the shard that it says. order: "completion" (the default) or "file". read_path: "auto", "direct", "buffered", "mapped" or
/// "gds". immutable: whether nothing writes to the local files as long as tensors of them live, which may
/// then be views of the files' pages. read_size: the size of one read or range request: bytes, or text such as "8MiB". engines:
/// the number of threads that read. hold_timeout_seconds: how long a load waits for a held tensor
/// when memory is full. verify: whether to check files and objects against the checksums of their
/// stores or of files beside them. manifest: a file that `ringload sum` wrote; tensors are checked
/// against its checksums. check_finite: whether tensors with NaN or infinity are an error. region, endpoint, headers, connections, s3_credentials: how stores are reached. pin: what
/// tells an object from a replacement: "auto", "etag", "length" or "none". unpinned: whether to load
/// objects that nothing tells from a replacement.
/// `s3_credentials` are access key id, secret access key, and session token or None. cache_dir: the
/// directory of the local file cache; "" for none. By default the environment decides. cache_size:
/// bytes, or text such as "200GiB". cache_validate: "always", "never", or an age such as "10m".
/// cache_shared: whether to trust everyone who may write to the cache. By default the environment
/// decides.
///
/// Raises:
///     InvalidInputError: if an option cannot be used. The message begins with its name.
///     TypeError: if an option is unknown, or a value of another type.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Loader {
    options: Options,
    /// Only threads that hold the GIL lock this, so that it is never locked while another thread
    /// forks.
    current: Mutex<ForkGuard<ringload::Loader>>,
}

impl Loader {
    /// Returns the loader of this process, made anew if the options are those of a parent process.
    pub(crate) fn current(&self, py: Python<'_>) -> PyResult<ringload::Loader> {
        let mut current = self.current.lock();
        if let Some(loader) = current.get() {
            return Ok(loader.clone());
        }
        let loader = self.options.loader().map_err(|error| raised(py, &error))?;
        *current = ForkGuard::new(loader.clone());
        Ok(loader)
    }
}

#[pymethods]
impl Loader {
    #[new]
    #[pyo3(signature = (**options), text_signature = "(*, device=None, memory_limit=None, keep=False, \
        runai_env=False, dtype=None, allocation=None, tensors=None, names=None, slices=None, variant=None, \
        all_files=False, strict=False, order=None, read_path=None, immutable=False, read_size=None, engines=None, \
        hold_timeout_seconds=None, verify=False, manifest=None, check_finite=False, region=None, \
        endpoint=None, headers=None, connections=None, pin=None, unpinned=None, s3_credentials=None, cache_dir=None, \
        cache_size=None, cache_validate=None, cache_shared=None)")]
    fn new(py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let options = Options::of(options)?;
        let loader = options.loader().map_err(|error| raised(py, &error))?;
        Ok(Self { options, current: Mutex::new(ForkGuard::new(loader)) })
    }

    /// Starts a load of the checkpoint at `locations`.
    ///
    /// Args:
    ///     locations: paths and URIs of files, directories, indexes and patterns.
    ///     keep_all: whether the caller keeps all tensors. If they exceed the memory limit, this
    ///         call raises the error, and not the stream.
    ///     progress: shows the progress of the load, from the opening on.
    ///
    /// Raises:
    ///     Error: if the load cannot be started.
    #[pyo3(signature = (locations, *, keep_all=false, progress=None))]
    fn stream(
        &self,
        py: Python<'_>,
        locations: Vec<OsString>,
        keep_all: bool,
        progress: Option<&Progress>,
    ) -> PyResult<Stream> {
        let loader = watched(self.current(py)?, progress);
        let start = move |loader: ringload::Loader| {
            let stream = loader.stream(locations)?;
            if keep_all {
                stream.check_holds_all()?;
            }
            Ok(stream)
        };
        wait_for(py, &loader, start).map(Stream::new)
    }

    /// Opens the checkpoint at `locations`, reading only its headers.
    ///
    /// Raises:
    ///     Error: if the checkpoint cannot be opened.
    #[pyo3(signature = (locations, *, progress=None))]
    fn open(
        &self,
        py: Python<'_>,
        locations: Vec<OsString>,
        progress: Option<&Progress>,
    ) -> PyResult<Checkpoint> {
        let loader = self.current(py)?;
        let opening = watched(loader.clone(), progress);
        let opened = wait_for(py, &opening, move |opening| opening.open(locations))?;
        Ok(Checkpoint::new(loader, opened))
    }

    /// Returns a checkpoint of tensors that are in memory, which this loader loads like any other: to
    /// GPUs through its pinned ring, cast, or in parts.
    ///
    /// Args:
    ///     location: what messages call the memory.
    ///     tensors: name, type, shape and offset in bytes of each, in the order of their offsets.
    ///     arrays: contiguous arrays of uint8, whose bytes follow each other. Nobody may write to them as
    ///         long as the checkpoint and its streams live, which keep them. With None, loads can be
    ///         planned only.
    ///
    /// Raises:
    ///     InvalidInputError: if a tensor is not within the arrays, or its type is unknown.
    #[pyo3(signature = (location, tensors, arrays=None))]
    fn in_memory(
        &self,
        py: Python<'_>,
        location: &str,
        tensors: Vec<Described>,
        arrays: Option<Vec<Bound<'_, PyAny>>>,
    ) -> PyResult<Checkpoint> {
        let loader = self.current(py)?;
        let memory = arrays.map(borrowed).transpose()?.map(Arc::new);
        let opened = described(tensors).and_then(|tensors| match &memory {
            Some(memory) => checkpoint_in_memory(&loader, location, memory, &tensors),
            None => Ok((loader, described_checkpoint(location, &tensors)?)),
        });
        let (loader, opened) = opened.map_err(|error| raised(py, &error))?;
        Ok(Checkpoint::of_memory(loader, opened, memory))
    }

    /// Lists the files or objects in the directory `location` with their lengths in bytes. With
    /// `recursive`, those in subdirectories are included.
    ///
    /// Raises:
    ///     Error: if the directory cannot be listed.
    #[pyo3(signature = (location, *, recursive=false))]
    fn list(
        &self,
        py: Python<'_>,
        location: OsString,
        recursive: bool,
    ) -> PyResult<Vec<(OsString, u64)>> {
        let loader = self.current(py)?;
        let list =
            move |loader: ringload::Loader| loader.list(&Location::parse_os(&location)?, recursive);
        let listed = wait_for(py, &loader, list)?;
        let name = |location| match location {
            Location::File(path) => path.into_os_string(),
            other => other.to_string().into(),
        };
        Ok(listed.into_iter().map(|listed| (name(listed.location), listed.len_bytes)).collect())
    }

    /// Downloads each location to the file named with it, relative to `directory`. Each file is
    /// written whole or not at all; a download that broke off is resumed by the next one.
    ///
    /// Returns:
    ///     The length of all files in bytes.
    ///
    /// Raises:
    ///     InvalidInputError: where a name leads out of the directory, or two names collide.
    ///     Error: where an object cannot be read or a file cannot be written.
    fn download(
        &self,
        py: Python<'_>,
        directory: PathBuf,
        files: Vec<(OsString, PathBuf)>,
    ) -> PyResult<u64> {
        let loader = self.current(py)?;
        wait_for(py, &loader, move |loader| {
            let files = files.into_iter().map(|(from, to)| Ok((Location::parse_os(&from)?, to)));
            let files = files.collect::<ringload::Result<Vec<_>>>()?;
            Ok(loader.download(&files, &directory)?.finish()?.bytes)
        })
    }

    /// Waits until everything that was loaded is in the local file cache, at most for `seconds` if
    /// given.
    ///
    /// Returns:
    ///     Whether everything is in the cache.
    #[pyo3(signature = (seconds=None))]
    fn flush(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<bool> {
        let Some(loader) = self.in_this_process() else { return Ok(true) };
        // A number of seconds that a Duration cannot hold means no limit.
        let timeout = seconds.and_then(|s| Duration::try_from_secs_f64(s.max(0.0)).ok());
        wait_for(py, &loader, move |loader| Ok(loader.flush(timeout)))
    }

    /// Returns the first problem of the local file cache, or None if there is none.
    fn cache_warning(&self) -> Option<String> {
        self.in_this_process()?.cache_warning()
    }
}

impl Loader {
    /// Returns the loader, or None if a parent process made it.
    fn in_this_process(&self) -> Option<ringload::Loader> {
        self.current.lock().get().cloned()
    }
}

/// Returns the memory limit that the environment sets: bytes, "min", "none" (as much as needed), or
/// None if it sets none.
///
/// Raises:
///     InvalidInputError: if a variable is not a limit. The message names the variable.
#[pyfunction]
pub(crate) fn environment_memory_limit(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let limit = ringload::options::environment_memory_limit();
    limit.map_err(|error| raised(py, &error))?.map(|limit| of_limit(py, limit)).transpose()
}

/// Returns the memory limit in a text: bytes, "min", or "none" (as much as needed).
///
/// Raises:
///     InvalidInputError: if the text is not a limit.
#[pyfunction]
pub(crate) fn parsed_memory_limit<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let limit = text.parse().map_err(|error: Error| {
        raised(py, &Error::new(error.kind(), format!("memory_limit: {error}")))
    });
    of_limit(py, limit?)
}

fn of_limit(py: Python<'_>, limit: MemoryLimit) -> PyResult<Bound<'_, PyAny>> {
    Ok(match limit {
        MemoryLimit::Bytes(bytes) => bytes.into_pyobject(py)?.into_any(),
        MemoryLimit::Unlimited => "none".into_pyobject(py)?.into_any(),
        limit => limit.to_string().into_pyobject(py)?.into_any(),
    })
}
