//! The unsafe code of this command: two reference measurements.
//!
//! * [`DirectReads`] measures the disk. One thread keeps `depth` O_DIRECT reads of `chunk` bytes in
//!   flight on one io_uring, over all files from first byte to last. The reads reuse a few buffers,
//!   or each has its own, as in a load that keeps its tensors. The bytes are not used. Where io_uring
//!   is refused, threads read with pread(2).
//! * [`MappedFiles`] measures mapping. Files in the page cache are mapped, and one thread reads one
//!   byte of each page.

#![allow(unsafe_code)]

use io_uring::{IoUring, opcode, types};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use ringload::internals::{PAGE_BYTES, Ring, Window, open_regular, spawn_scoped};
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The error of a read that returned less than the file holds.
const SHORT: &str = "a direct read was short";

/// Direct reads that are ready to run: the files are open and the buffers faulted in.
pub struct DirectReads {
    buffers: Vec<Window>,
    /// The reads in reverse order: file, offset, expected bytes.
    reads: Vec<(usize, u64, usize)>,
    files: Vec<File>,
    chunk_bytes: usize,
    depth: usize,
    reuse: bool,
}

impl DirectReads {
    /// Opens all of `paths` and prepares buffers of `chunk_bytes`: `depth` of them with `reuse`,
    /// otherwise one for each read.
    ///
    /// # Errors
    /// The errors of the kernel: EINVAL if the file system does not support direct reads.
    pub fn prepare(
        paths: &[PathBuf],
        chunk_bytes: usize,
        depth: usize,
        reuse: bool,
    ) -> io::Result<Self> {
        let mut reads = Vec::new();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
            let len = file.metadata()?.len();
            let read = |offset: u64| {
                let expected = (len - offset).min(chunk_bytes as u64) as usize;
                (files.len(), offset, expected)
            };
            reads.extend((0..len).step_by(chunk_bytes).map(read));
            files.push(file);
        }
        reads.reverse();
        let count = if reuse { depth } else { reads.len() };
        let ring = Ring::new(chunk_bytes * count, PAGE_BYTES).map_err(io::Error::other)?;
        ring.populate(ring.capacity(), 1)?;
        let slot = ring.allocate(chunk_bytes * count).ok_or(io::ErrorKind::OutOfMemory)?;
        let ends: Vec<_> = (1..=count).map(|i| i * chunk_bytes).collect();
        let buffers = slot.into_windows(&ends);
        Ok(Self { buffers, reads, files, chunk_bytes, depth, reuse })
    }

    /// Reads everything on `depth` threads and returns the number of bytes.
    ///
    /// # Errors
    /// The error of a read.
    pub fn run_on_threads(mut self) -> io::Result<u64> {
        let (reads, files, next) = (&self.reads, &self.files, &AtomicUsize::new(0));
        let read_some = |buffer: &mut [u8]| {
            let mut bytes = 0;
            let take = || reads.iter().rev().nth(next.fetch_add(1, Ordering::Relaxed));
            while let Some(&(file, offset, expected)) = take() {
                if files[file].read_at(buffer, offset)? < expected {
                    return Err(io::Error::other(SHORT));
                }
                bytes += expected as u64;
            }
            Ok(bytes)
        };
        thread::scope(|scope| {
            let buffers = self.buffers.iter_mut().take(self.depth).map(Window::unfilled_mut);
            let start = |buffer| {
                let thread = spawn_scoped(scope, "ringload-bench", move || read_some(buffer));
                thread.map_err(io::Error::other)
            };
            let threads = buffers.map(start).collect::<io::Result<Vec<_>>>()?;
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
        })
    }

    /// Reads everything on one io_uring and returns the number of bytes.
    ///
    /// # Errors
    /// The error of io_uring, or of a read, once no read is in flight any more.
    pub fn run_on_uring(mut self) -> io::Result<u64> {
        let mut uring = IoUring::new(self.depth.next_power_of_two() as u32)?;
        let mut free: Vec<usize> = (0..self.buffers.len()).collect();
        let mut expected_bytes = vec![0; self.buffers.len()];
        let (mut bytes, mut in_flight) = (0, 0);
        let mut failure = None;
        loop {
            while failure.is_none() && in_flight < self.depth && !self.reads.is_empty() {
                let Some(buffer) = free.pop() else { break };
                if let Some((file, offset, expected)) = self.reads.pop() {
                    expected_bytes[buffer] = expected;
                    self.submit(&mut uring, file, offset, buffer);
                    in_flight += 1;
                }
            }
            if in_flight == 0 {
                return failure.map_or(Ok(bytes), Err);
            }
            if let Err(error) = uring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The kernel may still write to the buffers, so they are leaked.
                std::mem::forget((self, uring));
                return Err(error);
            }
            for entry in uring.completion() {
                let buffer = entry.user_data() as usize;
                in_flight -= 1;
                if self.reuse {
                    free.push(buffer);
                }
                match entry.result() {
                    code @ ..0 => failure = Some(io::Error::from_raw_os_error(-code)),
                    got if (got as usize) < expected_bytes[buffer] => {
                        failure = Some(io::Error::other(SHORT));
                    }
                    _ => bytes += expected_bytes[buffer] as u64,
                }
            }
        }
    }

    fn submit(&mut self, uring: &mut IoUring, file: usize, offset: u64, buffer: usize) {
        let fd = types::Fd(self.files[file].as_raw_fd());
        let into = self.buffers[buffer].unfilled_ptr();
        let entry = opcode::Read::new(fd, into, self.chunk_bytes as u32)
            .offset(offset)
            .build()
            .user_data(buffer as u64);
        // SAFETY: the buffer is `chunk_bytes` long, in no other operation (it was taken off the
        // free list), and `run` keeps it, and the file, until this operation has completed.
        let pushed = unsafe { uring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "there are as many entries as buffers");
    }
}

/// Files that are mapped into memory.
pub struct MappedFiles {
    parts: Vec<(std::ptr::NonNull<std::ffi::c_void>, NonZeroUsize)>,
}

impl MappedFiles {
    /// Maps `paths` and reads one byte of each page. Returns the mappings, so that unmapping is not
    /// measured.
    ///
    /// # Errors
    /// The errors of mmap(2).
    pub fn touch(paths: &[PathBuf]) -> io::Result<Self> {
        let mut mapped = Self { parts: Vec::with_capacity(paths.len()) };
        for path in paths {
            let file = open_regular(path, "file").map_err(io::Error::other)?;
            let Some(len) = NonZeroUsize::new(file.metadata()?.len() as usize) else { continue };
            // SAFETY: a new read-only mapping at an address of the kernel's choice aliases nothing.
            let base =
                unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, &file, 0) }?;
            mapped.parts.push((base, len));
            let base = base.cast::<u8>();
            for offset in (0..len.get()).step_by(PAGE_BYTES) {
                // SAFETY: within the mapping. (If someone truncates the file meanwhile, this
                // measuring process is killed by a signal, which its parent reports.)
                let byte = unsafe { base.add(offset).read_volatile() };
                std::hint::black_box(byte);
            }
        }
        Ok(mapped)
    }
}

impl Drop for MappedFiles {
    fn drop(&mut self) {
        for &(base, len) in &self.parts {
            // SAFETY: exactly what mmap returned; nothing refers to it any more.
            let unmapped = unsafe { munmap(base, len.get()) };
            debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_also_where_a_file_ends_within_a_block() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<_> = [100_000_usize, 4096, 0, 5000]
            .into_iter()
            .map(|len| {
                let path = directory.path().join(len.to_string());
                std::fs::write(&path, vec![7; len]).unwrap();
                path
            })
            .collect();
        MappedFiles::touch(&paths).unwrap();
        let runs: [fn(DirectReads) -> io::Result<u64>; 2] =
            [DirectReads::run_on_uring, DirectReads::run_on_threads];
        for (reuse, run) in [(true, runs[0]), (false, runs[0]), (true, runs[1])] {
            match DirectReads::prepare(&paths, 16 << 10, 4, reuse).and_then(run) {
                Ok(bytes) => assert_eq!(bytes, 109_096),
                // The sandbox has no io_uring, or the temporary directory no direct reads.
                Err(refused) => eprintln!("skipped: {refused}"),
            }
        }
    }
}
