//! An open checkpoint, whose headers were read and whose tensors are read on request.

use crate::description::{described, found};
use crate::error::raised;
use crate::interrupts::wait_for;
use crate::mapped::Mapped;
use crate::options::with_limit;
use crate::progress::{Progress, watched};
use crate::slices::Rules;
use crate::stream::Stream;
use crate::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use ringload::internals::{
    BorrowedMemory, ForkGuard, MappedCheckpoint, Mutex, OpenFiles, PlannedRuns,
    checkpoint_of_ranges, planned_runs, shard_version,
};
use ringload::{Error, ErrorKind, Location, Pick, TensorInfo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tensors of up to this many bytes are read by the calling thread if the caller wants that.
const SHORT_BYTES: u64 = 256 << 10;

/// An open checkpoint. It keeps its files open until it is dropped.
#[pyclass(frozen, module = "ringload")]
pub(crate) struct Checkpoint {
    opened: ForkGuard<Opened>,
}

/// The name of a tensor; the shape of the part that is loaded, its bytes, and those that are read for it.
type PlannedPart = (String, Vec<usize>, u64, u64);

/// The name and the type of a tensor as it is loaded, the shape of its part, and the bytes of the part in
/// the tensor: the offset of the first run, the length of a run, and how often runs repeat at which
/// distance, outermost dimension first.
type PartRuns = (String, String, Vec<usize>, (u64, u64, Vec<(u64, u64)>));

struct Opened {
    loader: ringload::Loader,
    checkpoint: Arc<ringload::Checkpoint>,
    /// Only threads that hold the GIL lock this.
    kept_open: Mutex<Option<OpenFiles>>,
    /// The memory that the tensors are read from, if they are in no file.
    memory: Option<Arc<BorrowedMemory>>,
}

impl Checkpoint {
    pub(crate) fn new(loader: ringload::Loader, checkpoint: ringload::Checkpoint) -> Self {
        Self::of_memory(loader, checkpoint, None)
    }

    /// A checkpoint whose tensors are in `memory`.
    pub(crate) fn of_memory(
        loader: ringload::Loader,
        checkpoint: ringload::Checkpoint,
        memory: Option<Arc<BorrowedMemory>>,
    ) -> Self {
        let (checkpoint, kept_open) = (Arc::new(checkpoint), Mutex::new(None));
        Self { opened: ForkGuard::new(Opened { loader, checkpoint, kept_open, memory }) }
    }

    fn opened(&self, py: Python<'_>) -> PyResult<&Opened> {
        self.opened.get().ok_or_else(|| {
            let sentence =
                "this checkpoint was opened before the process forked; open it again here";
            raised(py, &Error::new(ErrorKind::Cancelled, sentence))
        })
    }

    fn tensor<'a>(&'a self, py: Python<'_>, name: &str) -> PyResult<(&'a Opened, &'a TensorInfo)> {
        let opened = self.opened(py)?;
        Ok((opened, found(py, &opened.checkpoint, name)?))
    }
}

#[pymethods]
impl Checkpoint {
    /// Returns the names of the tensors, in the order of the checkpoint.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.opened(py)?.checkpoint.tensors().iter().map(TensorInfo::name))
    }

    /// Returns the lengths of the tensors in bytes, in the order of the checkpoint.
    fn lengths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.opened(py)?.checkpoint.tensors().iter().map(TensorInfo::len_bytes))
    }

    /// Returns the `dtype`, `shape` and `nbytes` of a tensor, `shard`, the file that holds it, and
    /// `data_offset`, where the tensor begins in that file's tensor data.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has this name.
    fn info<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
        let (opened, info) = self.tensor(py, name)?;
        described(py, &opened.checkpoint, info)
    }

    /// Returns the `__metadata__` of the files. Where several have the same key, the first file's
    /// value counts.
    fn metadata(&self, py: Python<'_>) -> PyResult<BTreeMap<String, String>> {
        Ok(self.opened(py)?.checkpoint.metadata().clone())
    }

    /// Returns the location of each shard, and a text that distinguishes its bytes from those of a
    /// replacement. Processes that opened the same bytes get the same texts.
    fn versions(&self, py: Python<'_>) -> PyResult<Vec<(String, String)>> {
        let shards = self.opened(py)?.checkpoint.shards().iter();
        Ok(shards.map(|shard| (shard.location().to_string(), shard_version(shard))).collect())
    }

    /// Reads a tensor to the loader's device, or a part of it to host memory.
    ///
    /// Only the bytes of the part are read, and small gaps between them.
    ///
    /// Args:
    ///     name: the name of the tensor.
    ///     slices: (start, count, step) of each dimension. None reads the whole tensor.
    ///     at_once: whether this thread reads what is short and in a local file, which signals do not
    ///         interrupt. Use it for loads to host memory only.
    ///
    /// Raises:
    ///     NotFoundError: if no tensor has this name.
    ///     InvalidInputError: if the slices exceed the shape.
    #[pyo3(signature = (name, slices=None, *, at_once=false))]
    fn read(
        &self,
        py: Python<'_>,
        name: &str,
        slices: Option<Vec<(usize, usize, usize)>>,
        at_once: bool,
    ) -> PyResult<Tensor> {
        let (opened, info) = self.tensor(py, name)?;
        let pick = |(start, count, step)| Pick { start, count, step };
        let picks: Option<Vec<_>> = slices.map(|slices| slices.into_iter().map(pick).collect());
        let shard = &opened.checkpoint.shards()[info.shard()];
        let is_file = matches!(shard.location(), Location::File(_));
        if at_once && is_file && info.len_bytes() <= SHORT_BYTES {
            let read = || opened.loader.read_tensor(&opened.checkpoint, name, picks.as_deref());
            return py.detach(read).map(Tensor::new).map_err(|error| raised(py, &error));
        }
        let (name, checkpoint) = (name.to_owned(), Arc::clone(&opened.checkpoint));
        let read = move |loader: ringload::Loader| {
            loader.read_tensor(&checkpoint, &name, picks.as_deref())
        };
        wait_for(py, &opened.loader, read).map(Tensor::new)
    }

    /// Starts a load of the tensors, with the options of the loader that opened the checkpoint.
    ///
    /// Args:
    ///     names: the tensors to load, instead of the loader's selection.
    ///     memory_limit: the memory limit, instead of the loader's.
    ///     slices: the rules of slices, instead of the loader's.
    ///     keep_all: whether the caller keeps all tensors. If they exceed the memory limit, this
    ///         call raises the error, and not the stream.
    ///     progress: shows the progress of the load.
    ///
    /// Raises:
    ///     Error: if the load cannot be started.
    #[pyo3(signature = (*, names=None, memory_limit=None, slices=None, keep_all=false, progress=None))]
    fn stream(
        &self,
        py: Python<'_>,
        names: Option<Vec<String>>,
        memory_limit: Option<&Bound<'_, PyAny>>,
        slices: Option<&Bound<'_, PyAny>>,
        keep_all: bool,
        progress: Option<&Progress>,
    ) -> PyResult<Stream> {
        let opened = self.opened(py)?;
        let checkpoint = Arc::clone(&opened.checkpoint);
        let mut loader = watched(opened.loader.clone(), progress);
        if let Some(names) = names {
            loader = loader.tensors(Vec::<String>::new()).names(names);
        }
        if let Some(limit) = memory_limit {
            loader = with_limit(loader, limit, |error| raised(py, error))?;
        }
        if let Some(rules) = slices {
            let slices = Rules::of(rules)?.slices();
            loader = loader.slices(slices.map_err(|error| raised(py, &error))?);
        }
        let start = move |loader: ringload::Loader| {
            let stream = loader.stream_checkpoint(checkpoint)?;
            if keep_all {
                stream.check_holds_all()?;
            }
            Ok(stream)
        };
        let memory = opened.memory.clone();
        wait_for(py, &loader, start).map(|stream| Stream::new(stream).of_memory(memory))
    }

    /// Returns the name and the shape of the part of each tensor that a load with the options of the
    /// loader would read, and how many bytes the part has and how many are read for it.
    ///
    /// Raises:
    ///     Error: if such a load could not be started.
    fn planned(&self, py: Python<'_>) -> PyResult<Vec<PlannedPart>> {
        let opened = self.opened(py)?;
        let planned = opened.loader.planned(&opened.checkpoint);
        let planned = planned.map_err(|error| raised(py, &error))?;
        let name = |index: usize| opened.checkpoint.tensors()[index].name().to_owned();
        let part = |part: ringload::PlannedTensor| {
            (name(part.index), part.shape, part.bytes, part.read_bytes)
        };
        Ok(planned.into_iter().map(part).collect())
    }

    /// Returns the name, the type after a cast, and the shape of the part of each tensor that a load with
    /// the options of the loader would read, and the runs of bytes that the part consists of.
    ///
    /// Raises:
    ///     Error: if such a load could not be started.
    fn runs(&self, py: Python<'_>) -> PyResult<Vec<PartRuns>> {
        let opened = self.opened(py)?;
        let planned = planned_runs(&opened.loader, &opened.checkpoint);
        let planned = planned.map_err(|error| raised(py, &error))?;
        let part = |part: PlannedRuns| {
            let name = opened.checkpoint.tensors()[part.index].name().to_owned();
            let runs = (part.first_bytes, part.run_bytes, part.repeats);
            (name, part.dtype.to_string(), part.shape, runs)
        };
        Ok(planned.into_iter().map(part).collect())
    }

    /// Returns a checkpoint whose tensors are ranges of bytes of tensors of this one. Its streams yield
    /// them in this order and in host memory, each with its position in `ranges` as its name.
    ///
    /// Args:
    ///     ranges: (name, start, end) in bytes from the beginning of the tensor, in the order of the files.
    ///
    /// Raises:
    ///     InvalidInputError: if a range exceeds its tensor or is out of order.
    fn ranges(&self, py: Python<'_>, ranges: Vec<(String, u64, u64)>) -> PyResult<Self> {
        let opened = self.opened(py)?;
        let position = |(name, start, end): &(String, u64, u64)| {
            // A name that no tensor has exceeds the checkpoint.
            let index = opened.checkpoint.position(name).unwrap_or(usize::MAX);
            (index, *start..*end)
        };
        let ranges: Vec<_> = ranges.iter().map(position).collect();
        let of_ranges = checkpoint_of_ranges(&opened.loader, &opened.checkpoint, &ranges);
        let (loader, checkpoint) = of_ranges.map_err(|error| raised(py, &error))?;
        Ok(Self::of_memory(loader, checkpoint, opened.memory.clone()))
    }

    /// Keeps the local files open as long as this object lives, so that they can be renamed and
    /// removed meanwhile.
    ///
    /// Raises:
    ///     ChangedError: if a file is not the one that was opened.
    fn keep_open(&self, py: Python<'_>) -> PyResult<()> {
        let opened = self.opened(py)?;
        let files = OpenFiles::of(&opened.checkpoint).map_err(|error| raised(py, &error))?;
        *opened.kept_open.lock() = Some(files);
        Ok(())
    }

    /// Maps the files, which have to be local.
    ///
    /// Raises:
    ///     UnsupportedError: if a file is in a store or on a web server.
    ///     ChangedError: if a file is not the one that was opened.
    fn map(&self, py: Python<'_>) -> PyResult<Mapped> {
        let mapped = MappedCheckpoint::new(Arc::clone(&self.opened(py)?.checkpoint));
        mapped.map(Mapped::new).map_err(|error| raised(py, &error))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.opened(py)?.checkpoint.tensors().len())
    }
}
