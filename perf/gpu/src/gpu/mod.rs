//! The GPU, through the driver's own functions: the reference measurements must not use the
//! measured code of the library. cudarc owns the context, streams and events.
//!
//! Everything is used from the thread that opened the GPU. Objects on a GPU borrow it, and queued
//! work is waited for before the call that queued it returns, even if it fails. Therefore nothing
//! can outlive the objects that it uses.
//!
//! ```text
//! GPU (primary context) -> Memory, Pinned (host) -> copies, which are the limit; kernels (launches)
//! ```

#![allow(unsafe_code)]

mod kernels;
mod pages;

pub use kernels::{Batch, Kernel, Kernels, Piece};
pub use pages::{MappedFile, mapped_files_seconds};

use anyhow::{Context, Result, anyhow, ensure};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use ringload::internals::{PAGE_BYTES, Ring, Window};
use ringload_measure::system::cores;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Every context may use the registered memory.
const PORTABLE: u32 = 1;

/// A GPU whose primary context is current on this thread.
pub struct Gpu {
    context: Arc<CudaContext>,
    multiprocessors: u32,
    /// The current context is a property of the thread.
    _thread: PhantomData<*const ()>,
}

/// A sentence with the driver's error.
fn driver<T>(doing: &str, answer: std::result::Result<T, DriverError>) -> Result<T> {
    answer.map_err(|error| anyhow!("the GPU could not {doing}: {error:?}"))
}

/// For drops, which cannot fail.
fn warn(doing: &str, answer: std::result::Result<(), DriverError>) {
    if let Err(error) = driver(doing, answer) {
        eprintln!("warning: {error}");
    }
}

impl Gpu {
    /// Opens GPU `ordinal`: loads the driver and creates the context.
    ///
    /// # Errors
    /// If there is no driver or no such GPU.
    pub fn open(ordinal: u32) -> Result<Self> {
        // SAFETY: loading NVIDIA's library runs its initialisers, as intended.
        let is_present = unsafe { sys::is_culib_present() };
        ensure!(
            is_present,
            "no CUDA driver (libcuda.so.1) is on this machine; run this on one with an NVIDIA GPU \
             and its driver"
        );
        let context = driver("make a context", CudaContext::new(ordinal as usize))?;
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let count = driver("tell its multiprocessors", context.attribute(attribute))?;
        let multiprocessors = count.max(1).unsigned_abs();
        Ok(Self { context, multiprocessors, _thread: PhantomData })
    }

    /// Free memory in bytes.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn free_bytes(&self) -> Result<u64> {
        let (free, _) = driver("tell its free memory", self.context.mem_get_info())?;
        Ok(free as u64)
    }

    fn stream(&self) -> Result<Arc<CudaStream>> {
        driver("make a stream", self.context.new_stream())
    }

    /// Waits for all work, so that the results of ordinary copies are visible to every stream.
    fn synchronize(&self) -> Result<()> {
        driver("finish its work", self.context.synchronize())
    }

    /// The time of the work that `queue` queues, measured by the GPU.
    fn timed(&self, queue: impl Fn(&CudaStream) -> Result<()>) -> Result<f64> {
        let stream = self.stream()?;
        let record = || stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        let before = driver("record an event", record())?;
        let queued = queue(&stream);
        let after = record();
        driver("finish its work", stream.synchronize())?;
        queued?;
        let after = driver("record an event", after)?;
        let milliseconds = driver("tell a time", before.elapsed_ms(&after))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

/// Memory of a GPU.
pub struct Memory<'a> {
    gpu: &'a Gpu,
    address: u64,
    len: usize,
}

impl<'a> Memory<'a> {
    /// `len` bytes, not initialised.
    ///
    /// # Errors
    /// If the GPU is out of memory.
    pub fn new(gpu: &'a Gpu, len: usize) -> Result<Self> {
        // SAFETY: a context is current; freed once, on drop.
        let answer = unsafe { result::malloc_sync(len.max(1)) };
        let address = driver(&format!("allocate {len} bytes"), answer)?;
        Ok(Self { gpu, address, len })
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    /// The address of `range`, which has to lie within.
    fn address_of(&self, range: &Range<usize>) -> u64 {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        self.address + range.start as u64
    }

    /// Copies `bytes` from ordinary memory to `offset` and waits for the copy.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let address = self.address_of(&(offset..offset + bytes.len()));
        // SAFETY: the range lies within this allocation; nothing else is queued that uses it.
        driver("copy bytes in", unsafe { result::memcpy_htod_sync(address, bytes) })?;
        self.gpu.synchronize()
    }

    /// A copy of all bytes, in ordinary memory.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        if self.len > 0 {
            // SAFETY: both are of this length; nothing else is queued that uses the memory.
            let answer = unsafe { result::memcpy_dtoh_sync(&mut bytes, self.address) };
            driver("copy bytes out", answer)?;
        }
        Ok(bytes)
    }

    /// Sets all bytes.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn fill(&self, byte: u8) -> Result<()> {
        if self.len > 0 {
            // SAFETY: this allocation's bytes; nothing else is queued that uses them.
            let answer = unsafe { result::memset_d8_sync(self.address, byte, self.len) };
            driver("fill its memory", answer)?;
        }
        self.gpu.synchronize()
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated once, freed once; everything queued was waited for.
        warn("free memory", unsafe { result::free_sync(self.address) });
    }
}

/// Host memory that is pinned as in the library: mapped, with huge pages if possible, and
/// registered.
pub struct Pinned<'a> {
    gpu: &'a Gpu,
    /// Declared before the memory, as it is dropped first.
    _registered: Registered,
    memory: Window,
}

impl<'a> Pinned<'a> {
    /// `len` bytes.
    ///
    /// # Errors
    /// If there is no memory, or the driver fails to register it.
    pub fn new(gpu: &'a Gpu, len: usize) -> Result<Self> {
        let ring = Ring::keeping_memory(len, PAGE_BYTES, None)?;
        ring.populate(ring.capacity(), cores()).context("cannot fault in memory to pin")?;
        let window = ring.allocate(len).and_then(|slot| slot.into_windows(&[len]).pop());
        let mut memory = window.context("a new ring has no room for one slot")?;
        let start = memory.unfilled_ptr().cast();
        // SAFETY: it is unregistered before the memory is unmapped; all copies from it are waited for.
        let registered = unsafe { Registered::new(start, len, PORTABLE) }?;
        Ok(Self { gpu, _registered: registered, memory })
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.unfilled_mut()
    }
}

/// Registered host memory; unregistered on drop.
struct Registered(*mut c_void);

impl Registered {
    /// Registers `len` bytes of mapped memory.
    ///
    /// # Errors
    /// If the driver fails.
    ///
    /// # Safety
    /// The memory stays mapped, and all copies from it are waited for, before this is dropped.
    unsafe fn new(start: *mut c_void, len: usize, flags: u32) -> Result<Self> {
        // SAFETY: the caller guarantees that it is mapped until it is unregistered.
        let answer = unsafe { sys::cuMemHostRegister_v2(start, len, flags) }.result();
        driver(&format!("register {len} bytes of host memory"), answer)?;
        Ok(Self(start))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: registered once, unregistered once; all copies from it were waited for.
        warn("unregister host memory", unsafe { sys::cuMemHostUnregister(self.0) }.result());
    }
}

/// The time to copy `total` bytes from `from` to `to` in copies of `chunk` bytes, alternating between
/// two streams, as in loads. Both are reused repeatedly.
///
/// # Errors
/// If the driver fails.
pub fn host_to_device_seconds(
    from: &mut Pinned<'_>,
    to: &Memory<'_>,
    chunk: usize,
    total: usize,
) -> Result<f64> {
    let gpu = from.gpu;
    let bytes = &*from.bytes_mut();
    let chunk = chunk.min(bytes.len()).min(to.len);
    let (sources, targets) = (bytes.len() / chunk, to.len / chunk);
    let streams = [gpu.stream()?, gpu.stream()?];
    let began = Instant::now();
    let copy = |i: usize| {
        let source = &bytes[i % sources * chunk..][..chunk];
        let target = i % targets * chunk;
        let target = to.address_of(&(target..target + chunk));
        let stream = streams[i % streams.len()].cu_stream();
        // SAFETY: registered memory of `from`, and a range of `to`, which are borrowed until the
        // streams were waited for.
        let answer = unsafe { result::memcpy_htod_async(target, source, stream) };
        driver("copy registered bytes in", answer)
    };
    let queued = (0..(total / chunk).max(1)).try_for_each(copy);
    gpu.synchronize()?;
    queued?;
    Ok(began.elapsed().as_secs_f64())
}

/// The time of each of `repeats` transfers of `pieces` from `from` to `to`, each piece by a copy of its
/// own.
///
/// # Errors
/// If the driver fails.
pub fn single_copies_seconds(
    from: &mut Pinned<'_>,
    to: &Memory<'_>,
    pieces: &[Piece],
    repeats: u32,
) -> Result<f64> {
    let gpu = from.gpu;
    let bytes = &*from.bytes_mut();
    transfers_seconds(gpu, repeats, |stream| {
        pieces.iter().try_for_each(|piece| {
            let target = to.address_of(&(piece.target..piece.target + piece.length));
            let source = &bytes[piece.source..][..piece.length];
            // SAFETY: registered memory of `from`, and a range of `to`, which are borrowed until
            // the stream was waited for.
            let answer = unsafe { result::memcpy_htod_async(target, source, stream.cu_stream()) };
            driver("copy registered bytes in", answer)
        })
    })
}

/// The time of each of `repeats` transfers of the first `len` bytes of `from`: one copy to `staging`,
/// from which `scatter` copies the pieces.
///
/// # Errors
/// If the driver fails.
pub fn staged_copy_seconds(
    from: &mut Pinned<'_>,
    staging: &Memory<'_>,
    scatter: &Batch<'_>,
    len: usize,
    repeats: u32,
) -> Result<f64> {
    let gpu = from.gpu;
    let bytes = &from.bytes_mut()[..len];
    let target = staging.address_of(&(0..len));
    transfers_seconds(gpu, repeats, |stream| {
        // SAFETY: as in `single_copies_seconds`.
        let answer = unsafe { result::memcpy_htod_async(target, bytes, stream.cu_stream()) };
        driver("copy registered bytes in", answer)?;
        scatter.launch(stream)
    })
}

/// The time of each of `repeats` transfers that `queue` queues, one after the other in a stream.
fn transfers_seconds(
    gpu: &Gpu,
    repeats: u32,
    queue: impl Fn(&CudaStream) -> Result<()>,
) -> Result<f64> {
    let stream = gpu.stream()?;
    let began = Instant::now();
    let queued = (0..repeats).try_for_each(|_| queue(&stream));
    gpu.synchronize()?;
    queued?;
    Ok(began.elapsed().as_secs_f64() / f64::from(repeats))
}

/// The time of each of `repeats` copies of `len` bytes from `from` to `to`, one after the other.
///
/// # Errors
/// If the driver fails.
pub fn device_to_device_seconds(
    from: &Memory<'_>,
    to: &Memory<'_>,
    len: usize,
    repeats: u32,
) -> Result<f64> {
    let (source, target) = (from.address_of(&(0..len)), to.address_of(&(0..len)));
    let seconds = from.gpu.timed(|stream| {
        for _ in 0..repeats {
            // SAFETY: both ranges were checked, and `timed` waits for the stream.
            let copied =
                unsafe { result::memcpy_dtod_async(target, source, len, stream.cu_stream()) };
            driver("copy within itself", copied)?;
        }
        Ok(())
    })?;
    Ok(seconds / f64::from(repeats))
}
