//! GPUDirect Storage: files straight into the memory of a GPU, by cuFile.
//!
//! ```text
//! ring:   storage --DMA--> slot in host memory --DMA--> gpu
//! gds:    storage --DMA--> gpu
//! ```
//!
//! A [`GdsGpu`] has what a load needs of one GPU: its context, the layout, the allocations. The
//! threads that read are the engine's (`engine::gds`): cuFile's calls wait for what they read.
//!
//! **Registration.** Files are registered, as cuFile demands. Memory is not: that pins every page of
//! it in the GPU's BAR1, which is smaller than a model on many GPUs and takes longer than it saves
//! for memory that is read into once. Without it cuFile reads through buffers of its own on the GPU,
//! and the copy from there runs at the speed of the GPU's memory. It does the same for what is not
//! aligned to 4 KiB in the file or on the GPU, as most tensors are not.
//!
//! **Seen working.** cuFile can do its work by plain reads and copies ("compatibility mode"), which
//! the ring does better. So it counts as working only where its driver says that it serves some kind
//! of storage, it accepts the file, and the first block of that, read to the GPU and back, is the
//! one that a plain read gives: [`GdsGpu::probe`]. The answer is remembered for GPU and file system.

mod file;
mod library;

pub(crate) use file::{Driver, RegisteredFile};

use self::file::Refusal;
use super::arrivals::Arrivals;
use super::context::{Context, Entered};
use super::holding::Holding;
use super::layout::{Copy, Layout};
use super::memory::DeviceMemory;
use super::room;
use super::stream::{copy_in_now, copy_out_now};
use crate::error::Result;
use crate::options::Device;
use crate::plan::Extent;
use crate::tensor::{GpuMemory, LoadedTensors};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// What is compared before cuFile is believed.
pub(crate) const PROBE_BYTES: u64 = 4096;

/// A GPU that files are read to.
pub(crate) struct GdsGpu {
    context: Arc<Context>,
    layout: Layout,
    holding: Holding,
    arrivals: Mutex<Arrivals>,
}

/// The first bytes of a file, to see whether cuFile reads them.
pub(crate) struct Sample {
    /// The file, open for direct I/O.
    pub file: Arc<File>,
    /// The number of the file system that it is on.
    pub file_system: u64,
    /// Its first [`PROBE_BYTES`] bytes, or all that it has.
    pub bytes: Vec<u8>,
}

impl GdsGpu {
    /// Makes the GPU's context; nothing is allocated yet.
    ///
    /// # Errors
    /// Where there is no such GPU, or the driver fails.
    pub fn new(ordinal: u32, layout: Layout) -> Result<Self> {
        let context = Context::retain(ordinal)?;
        let arrivals = Mutex::new(Arrivals::new(&layout));
        Ok(Self { context, layout, holding: Holding::new(), arrivals })
    }

    /// The GPU.
    pub fn device(&self) -> Device {
        self.context.device()
    }

    /// Fails unless the GPU has room for the tensors.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory), naming both figures.
    pub fn check_room(&self) -> Result<()> {
        room::check(&self.context.enter()?, &self.layout, 0)
    }

    /// Fails with the reason unless cuFile reads `sample` to this GPU, and rightly.
    ///
    /// # Errors
    /// As said; the same again for other files of the file system.
    pub fn probe(&self, sample: &Sample) -> Result<(), String> {
        static ANSWERS: Mutex<Answers> = Mutex::new(None);
        let of = (self.device(), sample.file_system);
        let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers.get_or_insert_default().get(&of).cloned();
        known.unwrap_or_else(|| {
            // What the GPU itself fails at says nothing about cuFile, and is not remembered.
            let answer = self.try_out(sample).map_err(|error| error.to_string())?;
            answers.get_or_insert_default().insert(of, answer.clone());
            answer
        })
    }

    /// Reads the sample to the GPU and back; gives what is to be held of cuFile.
    fn try_out(&self, sample: &Sample) -> Result<Result<(), String>> {
        let entered = self.context.enter()?;
        let len = sample.bytes.len();
        let memory = DeviceMemory::new(&entered, len)?;
        let file = match RegisteredFile::new(Arc::clone(&sample.file)) {
            Ok(file) => file,
            Err(why) => return Ok(Err(why)),
        };
        let target = Target {
            entered: &entered,
            copy: Copy { from: 0, to: memory.address(), len_bytes: len as u64 },
        };
        let mut done = 0;
        while done < target.len_bytes() {
            match target.read(&file, done) {
                Ok(0) => return Ok(Err("cuFileRead ended before the file".to_owned())),
                Ok(read) => done += read,
                Err(refusal) => return Ok(Err(refusal.to_string())),
            }
        }
        let mut found = vec![0; len];
        // SAFETY: the allocation is that long and nothing writes to it any more.
        unsafe { copy_out_now(&entered, &mut found, memory.address()) }?;
        let wrong = "what cuFile read to the GPU is not what stands in the file; check the GPU and \
                     the versions of nvidia-fs and libcufile";
        Ok(if found == sample.bytes { Ok(()) } else { Err(wrong.to_owned()) })
    }

    /// Brings `extent` into place: `fill` is called for each of its parts. Gives the tensors that
    /// are whole now. Threads may do so at the same time for different extents.
    ///
    /// # Errors
    /// Those of `fill`, and when the GPU has no room.
    pub fn bring(
        &self,
        extent: &Extent,
        mut fill: impl FnMut(&Target<'_>) -> Result<()>,
    ) -> Result<Vec<LoadedTensors>> {
        let entered = self.context.enter()?;
        let addresses = self.holding.addresses(&entered, &self.layout, extent)?;
        let first = extent.positions().start;
        for copy in self.layout.copies(extent, |position| addresses[position - first]) {
            fill(&Target { entered: &entered, copy })?;
        }
        crate::metrics::device_bytes(self.device().to_string(), extent.len_bytes());
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = arrivals.add(&self.layout, extent);
        let hand_out = |positions| {
            let (storage, starts) = self.holding.hand_out(&self.layout, &positions, self.device());
            LoadedTensors { positions, storage, starts }
        };
        Ok(whole.into_iter().map(hand_out).collect())
    }
}

/// What was seen, by GPU and file system.
type Answers = Option<HashMap<(Device, u64), Result<(), String>>>;

/// A part of an extent, and where it goes: memory that belongs to this part alone, and is kept until
/// the part is in place.
pub(crate) struct Target<'a> {
    entered: &'a Entered<'a>,
    copy: Copy,
}

impl Target<'_> {
    /// Where the part begins in its source.
    pub fn offset_bytes(&self) -> u64 {
        self.copy.from
    }

    /// How long it is.
    pub fn len_bytes(&self) -> u64 {
        self.copy.len_bytes
    }

    /// Lets cuFile read what follows upon the first `done` bytes; gives how many came, 0 only at the
    /// end of the file.
    ///
    /// # Errors
    /// With what cuFile answered.
    pub fn read(&self, file: &RegisteredFile, done: u64) -> Result<u64, Refusal> {
        assert!(done <= self.copy.len_bytes, "beyond the part's end");
        let (left, offset) = (self.copy.len_bytes - done, self.copy.from + done);
        // SAFETY: the range lies within the part's own memory (see `Target`), of the current context.
        unsafe { file.read(self.entered, self.copy.to + done, left, offset) }
    }

    /// Copies `bytes` to behind the first `done` bytes.
    ///
    /// # Errors
    /// What the GPU's driver answers.
    pub fn write(&self, done: u64, bytes: &[u8]) -> Result<()> {
        assert!(done + bytes.len() as u64 <= self.copy.len_bytes, "beyond the part's end");
        // SAFETY: as in `read`.
        unsafe { copy_in_now(self.entered, self.copy.to + done, bytes) }
    }
}
