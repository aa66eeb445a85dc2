//! Copies to the GPU straight from the page cache: windows of mapped files are registered with the
//! driver, copied and unregistered, by several threads, each of which has two windows at a time.
//!
//! No byte is copied by a processor. What it costs instead is the time to pin and unpin the pages.

use super::{Gpu, Memory, PORTABLE, Registered, driver};
use anyhow::{Context, Result};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// The GPU only reads the registered memory, as the mapping permits no more.
const READ_ONLY: u32 = 8;
/// A thread registers a window while another one of it is being copied.
const UNDER_WAY: usize = 2;

/// A file that is mapped for reading.
pub struct MappedFile {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is only read, by the GPU, and lives as long as this.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the file at `path`, which must not be empty.
    ///
    /// # Errors
    /// If it cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let named = || format!("cannot map {}", path.display());
        let file = File::open(path).with_context(named)?;
        let len = NonZeroUsize::new(file.metadata()?.len() as usize).with_context(named)?;
        let (read, shared) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping; no reference to its bytes is ever made.
        let start = unsafe { mmap(None, len, read, shared, &file, 0) }.with_context(named)?;
        Ok(Self { start, len: len.get() })
    }

    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: mapped once, unmapped once; nothing of it is registered any more.
        if let Err(error) = unsafe { munmap(self.start, self.len) } {
            eprintln!("warning: cannot unmap a file: {error}");
        }
    }
}

/// A part of a mapped file, and where it goes on the GPU.
struct Window {
    start: usize,
    len: usize,
    target: u64,
}

/// The time to copy `files`, one after the other, to `to`, in windows of `window` bytes on `threads`
/// threads.
///
/// # Errors
/// If the driver fails, as it does where it registers no pages of files.
pub fn mapped_files_seconds(
    gpu: &Gpu,
    files: &[MappedFile],
    to: &Memory<'_>,
    window: usize,
    threads: usize,
) -> Result<f64> {
    let began = Instant::now();
    let (mut windows, mut done) = (Vec::new(), 0);
    for file in files {
        for offset in (0..file.len).step_by(window) {
            let (start, len) =
                (file.start.as_ptr() as usize + offset, window.min(file.len - offset));
            windows.push(Window { start, len, target: to.address_of(&(done..done + len)) });
            done += len;
        }
    }
    let (context, next) = (&gpu.context, AtomicUsize::new(0));
    thread::scope(|scope| {
        let copy = || copy_windows(context, &windows, &next);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(copy)).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended
            .map(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)))
            .fold(Ok(()), Result::and)
    })?;
    Ok(began.elapsed().as_secs_f64())
}

/// Copies windows until none is left.
fn copy_windows(context: &Arc<CudaContext>, windows: &[Window], next: &AtomicUsize) -> Result<()> {
    let stream = driver("make a stream", context.new_stream())?;
    let mut under_way = VecDeque::new();
    let left = || windows.get(next.fetch_add(1, Ordering::Relaxed));
    let copied = std::iter::from_fn(left)
        .try_for_each(|window| copy_window(&stream, window, &mut under_way));
    let finished = driver("finish its work", stream.synchronize());
    drop(under_way);
    copied.and(finished)
}

fn copy_window(
    stream: &CudaStream,
    window: &Window,
    under_way: &mut VecDeque<(Registered, CudaEvent)>,
) -> Result<()> {
    if under_way.len() == UNDER_WAY
        && let Some((_registered, copied)) = under_way.pop_front()
    {
        driver("finish a copy", copied.synchronize())?;
    }
    let start = window.start as *mut c_void;
    // SAFETY: it is unregistered before the file is unmapped, and after its copy was waited for.
    let registered = unsafe { Registered::new(start, window.len, PORTABLE | READ_ONLY) }?;
    // SAFETY: mapped memory that stays mapped and registered until the copy was waited for, and a range
    // of the target that is borrowed as long. Nobody writes to the file.
    let answer = unsafe {
        let bytes = std::slice::from_raw_parts(window.start as *const u8, window.len);
        result::memcpy_htod_async(window.target, bytes, stream.cu_stream())
    };
    driver("copy bytes of a mapped file in", answer)?; // else nothing was queued
    let copied = driver("record an event", stream.record_event(None));
    match copied {
        Ok(copied) => under_way.push_back((registered, copied)),
        Err(error) => {
            driver("finish its work", stream.synchronize())?;
            return Err(error);
        }
    }
    Ok(())
}
