//! The floors that need a pointer, and the tie between a child's life and its parent's. All unsafe
//! code of this command is here.
//!
//! * [`DirectReads`]: what the disk gives. One thread keeps `depth` O_DIRECT reads of `chunk`
//!   bytes in flight on one io_uring, over all files from first byte to last, into the same few
//!   buffers (or each into one of its own, as a load that keeps its tensors has to), and looks at
//!   none of it.
//! * [`MappedFiles`]: what mapping costs. Files that are in the page cache are mapped and one byte
//!   of each page is read, from one thread.

#![allow(unsafe_code)]

use io_uring::{IoUring, opcode, types};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use ringload::internals::{PAGE_BYTES, Ring, Window};
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Deep direct reads, ready to run: files open, buffers faulted in.
pub struct DirectReads {
    uring: IoUring,
    buffers: Vec<Window>,
    /// What is to be read: file, offset, wanted bytes; last first.
    reads: Vec<(usize, u64, usize)>,
    files: Vec<File>,
    chunk_bytes: usize,
    depth: usize,
    reuse: bool,
}

impl DirectReads {
    /// Opens all of `paths` and prepares buffers of `chunk_bytes`: `depth` of them with `reuse`,
    /// else one for each read.
    ///
    /// # Errors
    /// What the kernel answers: EINVAL where a file system has no direct reads.
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
                let want = (len - offset).min(chunk_bytes as u64) as usize;
                (files.len(), offset, want)
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
        let uring = IoUring::new(depth.next_power_of_two() as u32)?;
        Ok(Self { uring, buffers, reads, files, chunk_bytes, depth, reuse })
    }

    /// Reads everything; gives how many bytes that were.
    ///
    /// # Errors
    /// The first error of a read, when nothing is in flight any more.
    pub fn run(mut self) -> io::Result<u64> {
        let mut free: Vec<usize> = (0..self.buffers.len()).collect();
        let mut wanted = vec![0; self.buffers.len()];
        let (mut bytes, mut in_flight) = (0, 0);
        let mut failure = None;
        loop {
            while failure.is_none() && in_flight < self.depth && !self.reads.is_empty() {
                let Some(buffer) = free.pop() else { break };
                if let Some((file, offset, want)) = self.reads.pop() {
                    wanted[buffer] = want;
                    self.submit(file, offset, buffer);
                    in_flight += 1;
                }
            }
            if in_flight == 0 {
                return failure.map_or(Ok(bytes), Err);
            }
            if let Err(error) = self.uring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The kernel may still write to the buffers, so they are never given back.
                std::mem::forget(self);
                return Err(error);
            }
            for entry in self.uring.completion() {
                let buffer = entry.user_data() as usize;
                in_flight -= 1;
                if self.reuse {
                    free.push(buffer);
                }
                match entry.result() {
                    code @ ..0 => failure = Some(io::Error::from_raw_os_error(-code)),
                    got if (got as usize) < wanted[buffer] => {
                        failure = Some(io::Error::other("a direct read came back short"));
                    }
                    _ => bytes += wanted[buffer] as u64,
                }
            }
        }
    }

    fn submit(&mut self, file: usize, offset: u64, buffer: usize) {
        let fd = types::Fd(self.files[file].as_raw_fd());
        let into = self.buffers[buffer].unfilled_ptr();
        let entry = opcode::Read::new(fd, into, self.chunk_bytes as u32)
            .offset(offset)
            .build()
            .user_data(buffer as u64);
        // SAFETY: the buffer is `chunk_bytes` long, in no other operation (it was taken off the
        // free list), and `run` keeps it, and the file, until this operation has completed.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "there are as many entries as buffers");
    }
}

/// Files mapped whole, not touched yet.
pub struct MappedFiles {
    parts: Vec<(std::ptr::NonNull<std::ffi::c_void>, NonZeroUsize)>,
}

impl MappedFiles {
    /// Maps `paths` and reads one byte of each page; gives the mappings, so that undoing them can
    /// be left out of the time.
    ///
    /// # Errors
    /// What mmap(2) answers.
    pub fn touch(paths: &[PathBuf]) -> io::Result<Self> {
        let mut mapped = Self { parts: Vec::with_capacity(paths.len()) };
        for path in paths {
            let file = File::open(path)?;
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

/// Lets the kernel kill what `command` starts when the thread that started it ends.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: runs between fork and exec; prctl(2) is one system call, takes no lock and no memory.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
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
        for reuse in [true, false] {
            match DirectReads::prepare(&paths, 16 << 10, 4, reuse).and_then(DirectReads::run) {
                Ok(bytes) => assert_eq!(bytes, 109_096),
                // Where the temporary directory or the sandbox has neither: nothing to test.
                Err(refused) => eprintln!("skipped: {refused}"),
            }
        }
    }
}
