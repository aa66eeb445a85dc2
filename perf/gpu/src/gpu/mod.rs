//! The GPU, through the driver's own functions: the reference measurements must not use the
//! measured code of the library.
//!
//! Everything is used from the thread that opened the GPU. Objects on a GPU borrow it, and queued
//! work is waited for before the call that queued it returns, even if it fails. Therefore nothing
//! can outlive the objects that it uses.
//!
//! ```text
//! GPU (primary context) -> Memory, Pinned (host), Stream -> transfers (copies), kernels (launches)
//! ```

#![allow(unsafe_code)]

mod kernels;
mod transfers;

pub use kernels::{Batch, Kernel, Kernels, Piece};
pub use transfers::{device_to_device_seconds, host_to_device_seconds};

use anyhow::{Context, Result, anyhow, bail};
use cudarc::driver::{DriverError, result, sys};
use ringload::internals::{PAGE_BYTES, Ring, Window};
use ringload_measure::system::cores;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

/// Every context may use the registered memory.
const PORTABLE: u32 = 1;

/// A GPU whose primary context is current on this thread.
pub struct Gpu {
    device: sys::CUdevice,
    multiprocessors: u32,
    /// The current context is a property of the thread.
    _thread: PhantomData<*const ()>,
}

/// A sentence with the driver's error.
fn driver<T>(doing: &str, answer: std::result::Result<T, DriverError>) -> Result<T> {
    answer.map_err(|error| anyhow!("the GPU could not {doing}: {error:?}"))
}

impl Gpu {
    /// Opens GPU `ordinal`: loads the driver and creates the context.
    ///
    /// # Errors
    /// If there is no driver or no such GPU.
    pub fn open(ordinal: u32) -> Result<Self> {
        // SAFETY: loading NVIDIA's library runs its initialisers, as intended.
        if !unsafe { sys::is_culib_present() } {
            bail!(
                "no CUDA driver (libcuda.so.1) is on this machine; run this on one with an NVIDIA \
                 GPU and its driver"
            );
        }
        driver("initialise its driver", result::init())?;
        let device = driver("be found", result::device::get(ordinal as i32))?;
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        // SAFETY: the driver gave the device.
        let count = driver("tell its multiprocessors", unsafe {
            result::device::get_attribute(device, attribute)
        })?;
        // SAFETY: as above; released on drop.
        let context = driver("make a context", unsafe { result::primary_ctx::retain(device) })?;
        let gpu =
            Self { device, multiprocessors: count.max(1).unsigned_abs(), _thread: PhantomData };
        // SAFETY: the context is retained as long as the GPU lives.
        driver("use its context", unsafe { result::ctx::set_current(context) })?;
        Ok(gpu)
    }

    /// The number of multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Free memory in bytes.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn free_bytes(&self) -> Result<u64> {
        driver("tell its free memory", result::mem_get_info()).map(|(free, _)| free as u64)
    }

    /// Waits for all work, so that the results of ordinary copies are visible to every stream.
    fn synchronize(&self) -> Result<()> {
        driver("finish its work", result::ctx::synchronize())
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: no context is always there to be set.
        let left = unsafe { result::ctx::set_current(ptr::null_mut()) };
        // SAFETY: retained once, released once; what was made on it borrowed it and is gone.
        let released = unsafe { result::primary_ctx::release(self.device) };
        warn("let go of the GPU", left.and(released));
    }
}

/// For drops, which cannot fail.
fn warn(doing: &str, answer: std::result::Result<(), DriverError>) {
    if let Err(error) = driver(doing, answer) {
        eprintln!("warning: {error}");
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

    pub fn len(&self) -> usize {
        self.len
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
        // SAFETY: mapped memory of this process, unregistered on drop, before it is unmapped.
        let answer = unsafe { sys::cuMemHostRegister_v2(start, len, PORTABLE) }.result();
        driver(&format!("register {len} bytes of host memory"), answer)?;
        Ok(Self { gpu, memory })
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.unfilled_mut()
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let start = self.memory.unfilled_ptr().cast();
        // SAFETY: registered once, unregistered once; all copies from it were waited for.
        warn("unregister host memory", unsafe { sys::cuMemHostUnregister(start) }.result());
    }
}

/// A queue of work that the GPU executes in order. Dropping it waits for the work.
struct Stream<'a> {
    raw: sys::CUstream,
    _gpu: PhantomData<&'a Gpu>,
}

impl<'a> Stream<'a> {
    fn new(_gpu: &'a Gpu) -> Result<Self> {
        let raw = driver(
            "make a stream",
            result::stream::create(result::stream::StreamKind::NonBlocking),
        )?;
        Ok(Self { raw, _gpu: PhantomData })
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives.
        driver("finish its work", unsafe { result::stream::synchronize(self.raw) })
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once; nothing that was queued is left.
        let destroyed =
            unsafe { result::stream::synchronize(self.raw).and(result::stream::destroy(self.raw)) };
        warn("let go of a stream", destroyed);
    }
}

/// A point in a stream that records the time.
struct Event<'a> {
    raw: sys::CUevent,
    _gpu: PhantomData<&'a Gpu>,
}

impl<'a> Event<'a> {
    /// Records an event after the queued work of `stream`.
    fn record(stream: &Stream<'a>) -> Result<Self> {
        let raw =
            driver("make an event", result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
        let event = Self { raw, _gpu: PhantomData };
        // SAFETY: both live and are of the current context.
        driver("record an event", unsafe { result::event::record(raw, stream.raw) })?;
        Ok(event)
    }

    /// The time from `earlier` to this event, both of which are complete.
    fn seconds_since(&self, earlier: &Self) -> Result<f64> {
        // SAFETY: both live and were recorded in one stream.
        let answer = unsafe { result::event::elapsed(earlier.raw, self.raw) };
        driver("tell a time", answer).map(|milliseconds| f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        warn("let go of an event", unsafe { result::event::destroy(self.raw) });
    }
}

/// The time of the work that `queue` queues, measured by the GPU.
fn timed<'a>(gpu: &'a Gpu, queue: impl Fn(&Stream<'a>) -> Result<()>) -> Result<f64> {
    let stream = Stream::new(gpu)?;
    let before = Event::record(&stream)?;
    let queued = queue(&stream);
    let after = Event::record(&stream)?;
    stream.wait()?;
    queued?;
    after.seconds_since(&before)
}
