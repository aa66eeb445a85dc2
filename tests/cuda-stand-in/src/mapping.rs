//! The host memory that plays device memory: a mapping of its own for each allocation.
//!
//! ```text
//! guard page | 512 bytes of guard | the allocation | guard up to the page's end | guard page
//! ```
//! So an allocation is aligned to 512 bytes and to no more, what is written just outside is seen
//! when it is freed, and what is touched further outside faults.

use std::io;
use std::ptr;

const PAGE_BYTES: usize = 4096;
/// Before the allocation; behind it there is as much at least.
const GUARD_BYTES: usize = 512;
const GUARD: u8 = 0xFD;
/// What fresh device memory holds.
const FRESH: u8 = 0xA5;
/// What freed device memory holds.
const FREED: u8 = 0xDD;

#[derive(Debug)]
pub(crate) struct Mapping {
    start: usize,
    len: usize,
    bytes: usize,
}

impl Mapping {
    /// Poisoned memory for an allocation of `bytes`.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let inner = (GUARD_BYTES + bytes + GUARD_BYTES).next_multiple_of(PAGE_BYTES);
        let len = PAGE_BYTES + inner + PAGE_BYTES;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping where the kernel likes it touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Mapping { start: start as usize, len, bytes };
        mapping.protect(libc::PROT_READ | libc::PROT_WRITE)?;
        mapping.fill(mapping.start + PAGE_BYTES, inner, GUARD);
        mapping.fill(mapping.base(), bytes, FRESH);
        Ok(mapping)
    }

    /// Where the allocation starts.
    pub(crate) fn base(&self) -> usize {
        self.start + PAGE_BYTES + GUARD_BYTES
    }

    /// Whether nothing was written just before and just behind the allocation.
    pub(crate) fn is_intact(&self) -> bool {
        let end = self.base() + self.bytes;
        let behind = self.start + self.len - PAGE_BYTES - end;
        let intact = |start: usize, len: usize| {
            // SAFETY: both guards are inside the mapping, between its guard pages.
            let guard = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
            guard.iter().all(|byte| *byte == GUARD)
        };
        intact(self.start + PAGE_BYTES, GUARD_BYTES) && intact(end, behind)
    }

    /// Poisons the memory of an allocation that was freed; from here on it is only readable.
    pub(crate) fn poison(&self) {
        self.fill(self.base(), self.bytes, FREED);
        self.protect(libc::PROT_READ).ok(); // it stays writable: poison shows itself all the same
    }

    /// Gives the memory back, but not the addresses.
    pub(crate) fn give_back(&self) {
        self.protect(libc::PROT_NONE).ok(); // as above
        // SAFETY: the allocation was freed, so that nobody uses these pages.
        unsafe { libc::madvise(self.start as *mut libc::c_void, self.len, libc::MADV_DONTNEED) };
    }

    fn fill(&self, start: usize, len: usize, byte: u8) {
        // SAFETY: callers name ranges between the guard pages, while these are writable.
        unsafe { ptr::write_bytes(start as *mut u8, byte, len) };
    }

    fn protect(&self, protection: i32) -> io::Result<()> {
        let (start, len) = (self.start + PAGE_BYTES, self.len - 2 * PAGE_BYTES);
        // SAFETY: the pages are this mapping's own.
        match unsafe { libc::mprotect(start as *mut libc::c_void, len, protection) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and its allocation is gone.
        unsafe { libc::munmap(self.start as *mut libc::c_void, self.len) };
    }
}

/// Whether all of the range is mapped in this process.
pub(crate) fn is_mapped(start: u64, bytes: u64) -> bool {
    let page = start & !(PAGE_BYTES as u64 - 1);
    let len = (start + bytes - page) as usize;
    // SAFETY: asks about the pages without changing them.
    unsafe { libc::msync(page as *mut libc::c_void, len, libc::MS_ASYNC) == 0 }
}
