//! The loader's options for tensors, devices, memory and reads.

use super::loader::Loader;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::options::{self, Allocation, DeviceMap, MemoryLimit, Order, ReadPath};
use crate::plan::{ReadOptions, Selection, Slices, TensorFilter, YieldOrder};
use crate::source::{Cancellation, Progress};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

impl Loader {
    /// Creates a loader with the default options: no memory limit, the read path `auto`, an
    /// automatic number of engines, and tensors in completion order in host memory.
    ///
    /// No environment variable sets an option of this loader; [`from_env`](Self::from_env) makes one
    /// whose options variables set. Variables of stores and of the network count, such as
    /// `AWS_ACCESS_KEY_ID` and `HTTPS_PROXY`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a loader whose options, where they are not set, have the values of environment
    /// variables such as `RINGLOAD_MEMORY_LIMIT`, or else the defaults. [`options`](crate::options)
    /// lists the variables. They are read when a load needs them, and a load fails with
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable, if its value is invalid.
    ///
    /// ```no_run
    /// # fn main() -> ringload::Result<()> {
    /// // RINGLOAD_CONCURRENCY and others count, but not RINGLOAD_MEMORY_LIMIT.
    /// let limit = ringload::MemoryLimit::Bytes(2 << 30);
    /// let stream = ringload::Loader::from_env().memory_limit(limit).stream("/models/llama-8b")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_env() -> Self {
        Self::default().remote(|options| options.env = Arc::new(options::environment))
    }

    /// Limits how much host memory tensors may take at once. Takes precedence over the environment
    /// ([`from_env`](Self::from_env)).
    #[must_use]
    pub fn memory_limit(mut self, limit: MemoryLimit) -> Self {
        self.options.memory_limit = Some(limit);
        self
    }

    /// Sets how local files are read.
    #[must_use]
    pub fn read_path(mut self, path: ReadPath) -> Self {
        self.options.read_path = path;
        self
    }

    /// Says that nothing writes to the local files, or truncates them, as long as tensors of them live.
    /// Files may be removed, and replaced by renaming others over them.
    ///
    /// With [`ReadPath::Auto`], tensors in host memory are then views of the files' pages: processes share
    /// them until they write to them, and a load of what is in the page cache takes no time. Loads with a
    /// memory limit, checks of bytes, casts or gathered slices read the files as without this option, and
    /// so do loads from mounted servers. The load fails with
    /// [`Changed`](crate::ErrorKind::Changed) if a file changed before it ended. If one changes later,
    /// so do the tensors, and access to pages beyond a new end kills the process (SIGBUS).
    ///
    /// Blobs of the Hugging Face Hub's cache, which are named by their SHA-256, need no such word.
    #[must_use]
    pub fn immutable(mut self, immutable: bool) -> Self {
        self.options.immutable = immutable;
        self
    }

    /// Sets the number of engines (threads that read), at most 1024; 0 chooses it by the size of the load and the
    /// number of cores. Takes precedence over the environment ([`from_env`](Self::from_env)).
    #[must_use]
    pub fn engines(mut self, engines: usize) -> Self {
        self.options.engines = engines;
        self
    }

    /// Sets the size in bytes of one read of a file, or of one range request for an object: from 4
    /// KiB to 256 MiB, rounded up to the file's blocks. Default: 8 MiB. Under a small memory limit
    /// reads are smaller, so that eight of them (sixteen range requests) fit the limit.
    #[must_use]
    pub fn read_bytes(mut self, bytes: u64) -> Self {
        self.options.read_bytes = Some(bytes);
        self
    }

    /// Sets the order in which a stream yields tensors.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.options.order = order;
        self
    }

    /// Loads only tensors whose name matches one of these globs (`*` and `?` match any character,
    /// `[ab]` one of several, `{a,b}` alternatives). Replaces globs that were set before. An empty
    /// list selects all tensors.
    #[must_use]
    pub fn tensors(mut self, globs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.selection.globs = globs.into_iter().map(Into::into).collect();
        self
    }

    /// Loads only the tensors with these names, in addition to those that a glob of
    /// [`tensors`](Self::tensors) matches, in the order of the checkpoint. A name that no tensor has
    /// is an error of the load. Replaces names that were set before. An empty list selects no tensors.
    #[must_use]
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.selection.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Loads only the tensors that `accepts` returns true for, of those that
    /// [`tensors`](Self::tensors) and [`names`](Self::names) select. It decides by their names, types and
    /// shapes, for example whether an expert belongs to this rank. The others are not read. Replaces a
    /// filter that was set before.
    #[must_use]
    pub fn filter(mut self, accepts: impl Fn(&TensorInfo) -> bool + Send + Sync + 'static) -> Self {
        self.options.selection.filter = Some(TensorFilter::new(accepts));
        self
    }

    /// Loads only a part of tensors, by rules. Of the first dimension, and wherever the part is contiguous
    /// in the file, exactly its bytes are read. Of inner dimensions, the parts of rows are read and
    /// gathered; short gaps between them are read, too. A part takes as much memory as it has bytes, and
    /// a memory limit counts that. [`Tensor::full_shape`](crate::Tensor::full_shape) has the shape in the
    /// file.
    ///
    /// [`read_tensor`](Self::read_tensor) without picks reads the same part. Checksums of whole
    /// tensors and files cannot be compared ([`verify`](Self::verify), [`manifest`](Self::manifest)) and
    /// are an error of the load; [`check_finite`](Self::check_finite) looks at the values of the part.
    /// Replaces slices that were set before.
    #[must_use]
    pub fn slices(mut self, slices: Slices) -> Self {
        self.options.selection.slices = slices;
        self
    }

    /// Reads every `*.safetensors` file of a directory, without its index and by no other rule.
    #[must_use]
    pub fn all_files(mut self, all_files: bool) -> Self {
        self.options.checkpoint.all_files = all_files;
        self
    }

    /// Reads the files of a directory that belong to this variant, such as `fp16`:
    /// `model.fp16.safetensors`, `model.safetensors.index.fp16.json` and the like. An empty text
    /// selects the files of no variant, which is the default.
    #[must_use]
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.options.checkpoint.variant = Some(variant.into()).filter(|name| !name.is_empty());
        self
    }

    /// Refuses a checkpoint whose index names a tensor that is not in the shard that the index says.
    /// Without this option such a tensor is used from another shard that has it, or else left out
    /// ([`Checkpoint::missing`](crate::Checkpoint::missing)), with a warning.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.options.checkpoint.strict = strict;
        self
    }

    /// Sets the destination of tensors: a [`Device`](crate::Device), or a map from their names to
    /// devices. Default: host memory.
    ///
    /// Tensors for a GPU pass through a ring of pinned host memory, which the loader keeps for its
    /// next load. The memory limit bounds that ring, and with it host memory, but not the GPU's
    /// memory.
    #[must_use]
    pub fn device(mut self, devices: impl Into<DeviceMap>) -> Self {
        self.options.devices = devices.into();
        self
    }

    /// Sets how GPU memory is allocated for tensors.
    #[must_use]
    pub fn allocation(mut self, allocation: Allocation) -> Self {
        self.options.allocation = allocation;
        self
    }

    /// Casts floats to F32, F16 or BF16 while they are loaded: tensors of F32, F16, BF16, F8_E4M3 and
    /// F8_E5M2. All other tensors, F64 among them, are loaded as stored. [`cast`](crate::cast) defines
    /// the results bit for bit.
    ///
    /// In host memory a tensor that is cast exists twice for a short time, as stored and as cast, and a
    /// memory limit counts both. Tensors for a GPU are cast there.
    #[must_use]
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.options.dtype = Some(dtype);
        self
    }

    /// Sets how long a load under a memory limit waits, while the caller holds all memory and
    /// requests another tensor, before it fails with
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit). Default: 10 s.
    #[must_use]
    pub fn hold_timeout(mut self, timeout: Duration) -> Self {
        self.options.hold_timeout = timeout;
        self
    }

    /// Sets whether the caller still holds the last tensor while it waits for the next one. If so,
    /// the limit `min` means [`MinHoldingOne`](MemoryLimit::MinHoldingOne), also if the environment
    /// sets `min`.
    #[must_use]
    pub fn consumer_holds_one(mut self, holds: bool) -> Self {
        self.options.consumer_holds_one = holds;
        self
    }

    /// Sets whether the caller of a load with a memory limit may keep more tensors in host memory
    /// than the limit allows. Once it holds all memory of the load, the load goes on in as much new
    /// memory. By default the load then fails.
    #[must_use]
    pub fn caller_may_retain_all(mut self, caller_may_retain_all: bool) -> Self {
        self.options.caller_may_retain_all = caller_may_retain_all;
        self
    }

    /// Sets whether streams record how their memory is used, and when.
    /// [`TensorStream::timeline`](crate::TensorStream::timeline) returns the result. The record
    /// takes about 200 bytes per use of a slot.
    ///
    /// ```no_run
    /// # fn main() -> ringload::Result<()> {
    /// let mut stream = ringload::Loader::new().timeline(true).stream("/models/llama-8b")?;
    /// for tensor in stream.by_ref() {
    ///     drop(tensor?);
    /// }
    /// for slot in stream.timeline().unwrap_or_default().slots {
    ///     println!("{} bytes by {:?}: {:?}", slot.bytes, slot.paths, slot.stages);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn timeline(mut self, timeline: bool) -> Self {
        self.options.timeline = timeline;
        self
    }

    /// Lets `cancellation` end the calls of this loader and its loads, from any thread. They then fail
    /// with [`Cancelled`](crate::ErrorKind::Cancelled). A server sets another cancellation for each
    /// load on a clone of the loader, which keeps its connections.
    #[must_use]
    pub fn cancellation(mut self, cancellation: &Cancellation) -> Self {
        self.opener = Arc::new(self.opener.cancelled_by(cancellation));
        self
    }

    /// Shows the progress of this loader's calls in `progress`, from their beginning on: of loads and
    /// streams, of [`open`](Self::open), [`read_into`](Self::read_into) and downloads, and of their async
    /// forms. A server sets another one for each load on a clone of the loader.
    #[must_use]
    pub fn progress(mut self, progress: &Progress) -> Self {
        self.opener = Arc::new(self.opener.watched_by(Some(progress)));
        self
    }

    /// Reads the kernel's /proc and /sys below `root`, so that tests can imitate other machines.
    #[doc(hidden)]
    #[must_use]
    pub fn system_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.options.system_root = root.into();
        self
    }

    /// The tensors to load of `checkpoint`, and the order in which they are yielded.
    pub(super) fn selection(&self, checkpoint: &Checkpoint) -> Selection {
        let mut selection = self.options.selection.clone();
        if let Order::Names(names) = &self.options.order {
            let reads_in_file_order = self.reads_in_file_order(checkpoint);
            selection.order = Some(YieldOrder { names: Arc::clone(names), reads_in_file_order });
        }
        selection
    }

    /// The memory limit as set here or by the environment.
    pub(super) fn resolved_memory_limit(&self) -> Result<MemoryLimit> {
        let limit = match self.options.memory_limit {
            Some(limit) => limit,
            None => options::memory_limit_from(&*self.opener.options.env)?.unwrap_or_default(),
        };
        Ok(match limit {
            MemoryLimit::Min if self.options.consumer_holds_one => MemoryLimit::MinHoldingOne,
            limit => limit,
        })
    }

    /// Checks the variables of options that only some locations need, so that a wrong value fails
    /// every load and not only some.
    pub(super) fn check_variables(&self) -> Result<()> {
        self.opener.options.in_force()?;
        self.cache.options.settings(options::environment).map(drop)
    }

    /// The sizes of reads as set here or by the environment.
    pub(super) fn read_options(&self) -> Result<ReadOptions> {
        let engines = match self.options.engines {
            0 => options::engines_from(&*self.opener.options.env, options::cores())?,
            engines => Some(options::at_most(engines, options::ENGINES_MAX, "engines")?),
        };
        let max = options::CONNECTIONS_MAX_SET;
        let connections = self.opener.options.connections;
        let connections =
            connections.map(|set| options::at_most(set, max, "connections")).transpose()?;
        let read_bytes = self.options.read_bytes;
        Ok(ReadOptions { engines, connections, read_bytes, to_gpus: false })
    }
}
