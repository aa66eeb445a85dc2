//! GPUDirect Storage: cuFile reads files directly to the memory of a GPU.
//!
//! ```text
//! ring:   storage --DMA--> slot in host memory --DMA--> gpu
//! gds:    storage --DMA--> gpu
//! ```
//!
//! A [`GdsGpu`] holds what a load needs of one GPU: its context, the layout and the allocations. The
//! threads that read belong to the engine (`engine::gds`), because cuFile's calls block until their
//! read has finished.
//!
//! **Registration.** Files are registered, as cuFile requires. Memory is not registered, because that
//! pins every page of it in the GPU's BAR1. On many GPUs the BAR1 is smaller than a model, and for
//! memory that is read into once registration takes longer than it saves. Without registration cuFile
//! reads through its own buffers on the GPU and copies from there at the speed of the GPU's memory.
//! It also does so for ranges that are not aligned to 4 KiB in the file or on the GPU, as most tensors
//! are.
//!
//! **Probing.** In its compatibility mode cuFile reads to host memory and copies, which is slower than
//! the ring. Therefore cuFile is used only if its driver reports that it serves some kind of storage,
//! it accepts the file, and the first block of the file, read to the GPU and back, equals the one that
//! an ordinary read returns: [`GdsGpu::probe`]. The result is remembered by GPU and file system.

mod file;
mod library;

pub(crate) use file::{CufileDriver, RegisteredFile};

use self::file::CufileReadError;
use super::allocations::{Allocations, check_memory};
use super::completion_tracker::CompletionTracker;
use super::context::{Context, Entered};
use super::layout::{Layout, TensorCopy};
use super::memory::DeviceMemory;
use super::stream::{copy_in_now, copy_out_now};
use crate::error::Result;
use crate::options::Device;
use crate::plan::Extent;
use crate::sync::Mutex;
use crate::tensor::{GpuMemory, LoadedTensors};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The number of bytes that the probe compares.
pub(crate) const PROBE_BYTES: u64 = 4096;

/// A GPU that cuFile reads files to.
pub(crate) struct GdsGpu {
    context: Arc<Context>,
    layout: Layout,
    allocations: Allocations,
    tracker: Mutex<CompletionTracker>,
}

/// The first bytes of a file, with which cuFile is probed.
pub(crate) struct ProbeSample {
    /// The file, open for direct I/O.
    pub file: Arc<File>,
    /// The device number of the file system.
    pub file_system: u64,
    /// The file's first [`PROBE_BYTES`] bytes, or all bytes of a shorter file.
    pub bytes: Vec<u8>,
}

impl GdsGpu {
    /// Creates the GPU's context. Nothing is allocated yet.
    ///
    /// # Errors
    /// If there is no such GPU or the driver fails.
    pub fn new(ordinal: u32, layout: Layout) -> Result<Self> {
        let context = Context::retain(ordinal)?;
        let tracker = Mutex::new(CompletionTracker::new(&layout));
        Ok(Self { context, layout, allocations: Allocations::default(), tracker })
    }

    /// The GPU.
    pub fn device(&self) -> Device {
        self.context.device()
    }

    /// Fails unless the GPU has enough free memory for the tensors. The kernel's /proc and /sys are read
    /// below `system_root`.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory), naming the required and the free bytes.
    pub fn check_memory(&self, system_root: &Path) -> Result<()> {
        check_memory(&self.context.enter()?, &self.layout, 0, system_root)
    }

    /// Checks that cuFile reads `sample` correctly to this GPU.
    ///
    /// # Errors
    /// The reason why cuFile cannot be used, which applies to all files of the file system.
    pub fn probe(&self, sample: &ProbeSample) -> Result<(), String> {
        static RESULTS: Mutex<ProbeResults> = Mutex::new(None);
        let key = (self.device(), sample.file_system);
        let mut results = RESULTS.lock();
        let known = results.get_or_insert_default().get(&key).cloned();
        known.unwrap_or_else(|| {
            // A failure of the GPU itself is no result of the probe and is not remembered.
            let result = self.read_sample(sample).map_err(|error| error.to_string())?;
            results.get_or_insert_default().insert(key, result.clone());
            result
        })
    }

    /// Reads the sample to the GPU and back. Returns the outer error if the GPU fails, and the inner
    /// one if cuFile does.
    fn read_sample(&self, sample: &ProbeSample) -> Result<Result<(), String>> {
        let entered = self.context.enter()?;
        let len = sample.bytes.len();
        let memory = DeviceMemory::new(&entered, len)?;
        let file = match RegisteredFile::new(Arc::clone(&sample.file)) {
            Ok(file) => file,
            Err(why) => return Ok(Err(why)),
        };
        let copy = TensorCopy { from: 0, to: memory.address(), len_bytes: len as u64 };
        let target = GdsTarget { entered: &entered, copy };
        let mut done = 0;
        while done < target.len_bytes() {
            match target.read(&file, done) {
                Ok(0) => return Ok(Err("cuFileRead ended before the end of the file".to_owned())),
                Ok(read) => done += read,
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        let mut found = vec![0; len];
        // SAFETY: the allocation has this length, and nothing writes to it any more.
        unsafe { copy_out_now(&entered, &mut found, memory.address()) }?;
        let wrong = "cuFile read other bytes than the file has; check the GPU and the versions of \
                     nvidia-fs and libcufile";
        Ok(if found == sample.bytes { Ok(()) } else { Err(wrong.to_owned()) })
    }

    /// Loads `extent` by calling `fill` for each of its parts. Returns the tensors that this
    /// completes. Several threads may load different extents at the same time.
    ///
    /// # Errors
    /// The errors of `fill`, and [`OutOfMemory`](crate::ErrorKind::OutOfMemory).
    pub fn load_extent(
        &self,
        extent: &Extent,
        mut fill: impl FnMut(&GdsTarget<'_>) -> Result<()>,
    ) -> Result<Vec<LoadedTensors>> {
        let entered = self.context.enter()?;
        let addresses = self.allocations.addresses(&entered, &self.layout, extent)?;
        let first = extent.positions().start;
        for copy in self.layout.copies(extent, |position| addresses[position - first]) {
            fill(&GdsTarget { entered: &entered, copy })?;
        }
        let mut tracker = self.tracker.lock();
        Ok(tracker.complete(&self.layout, &self.allocations, extent, self.device()).collect())
    }
}

/// The results of probes, by GPU and file system.
type ProbeResults = Option<HashMap<(Device, u64), Result<(), String>>>;

/// A part of an extent and its destination: GPU memory that belongs to this part only and stays
/// allocated until the part is loaded.
pub(crate) struct GdsTarget<'a> {
    entered: &'a Entered<'a>,
    copy: TensorCopy,
}

impl GdsTarget<'_> {
    /// The offset of the part in its source.
    pub fn offset_bytes(&self) -> u64 {
        self.copy.from
    }

    /// The length of the part.
    pub fn len_bytes(&self) -> u64 {
        self.copy.len_bytes
    }

    /// Reads the bytes after the first `done` bytes with cuFile. Returns the number of bytes that were
    /// read, which is 0 only at the end of the file.
    ///
    /// # Errors
    /// If cuFile fails.
    pub fn read(&self, file: &RegisteredFile, done: u64) -> Result<u64, CufileReadError> {
        assert!(done <= self.copy.len_bytes, "the read begins beyond the end of the part");
        let (left, offset) = (self.copy.len_bytes - done, self.copy.from + done);
        // SAFETY: the range lies within the part's own memory (see `GdsTarget`) of the current context.
        unsafe { file.read(self.entered, self.copy.to + done, left, offset) }
    }

    /// Copies `bytes` to the memory after the first `done` bytes.
    ///
    /// # Errors
    /// If the GPU's driver fails.
    pub fn write(&self, done: u64, bytes: &[u8]) -> Result<()> {
        assert!(
            done + bytes.len() as u64 <= self.copy.len_bytes,
            "the write ends beyond the end of the part"
        );
        // SAFETY: as in `read`.
        unsafe { copy_in_now(self.entered, self.copy.to + done, bytes) }
    }
}
