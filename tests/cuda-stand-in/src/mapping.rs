//! The host memory that represents device memory: one mapping for each allocation.
//!
//! ```text
//! guard page | 512 bytes of guard | the allocation | guard up to the page's end | guard page
//! ```
//! An allocation is aligned to exactly 512 bytes. A write just outside of it is detected when the
//! allocation is freed, and an access further outside faults.

use std::fs;
use std::io;
use std::ptr;

const PAGE_BYTES: usize = 4096;
/// The guard before the allocation; the one after it is at least as long.
const GUARD_BYTES: usize = 512;
const GUARD: u8 = 0xFD;
/// The content of fresh device memory.
const FRESH: u8 = 0xA5;
/// The content of freed device memory.
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

    /// The start of the allocation.
    pub(crate) fn base(&self) -> usize {
        self.start + PAGE_BYTES + GUARD_BYTES
    }

    /// Whether the guards before and after the allocation are intact.
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

    /// Poisons the memory of a freed allocation and makes it read-only.
    pub(crate) fn poison(&self) {
        self.fill(self.base(), self.bytes, FREED);
        self.protect(libc::PROT_READ).ok(); // if this fails the memory stays writable; the poison still shows
    }

    /// Returns the memory to the system, but keeps the addresses reserved.
    pub(crate) fn give_back(&self) {
        self.protect(libc::PROT_NONE).ok(); // as above
        // SAFETY: the allocation was freed, so that nobody uses these pages.
        unsafe { libc::madvise(self.start as *mut libc::c_void, self.len, libc::MADV_DONTNEED) };
    }

    fn fill(&self, start: usize, len: usize, byte: u8) {
        // SAFETY: callers pass ranges between the guard pages while they are writable.
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
        // SAFETY: the mapping belongs to `self`, and its allocation is freed.
        unsafe { libc::munmap(self.start as *mut libc::c_void, self.len) };
    }
}

/// Whether all of the range is mapped in this process.
pub(crate) fn is_mapped(start: u64, bytes: u64) -> bool {
    let page = start & !(PAGE_BYTES as u64 - 1);
    let len = (start + bytes - page) as usize;
    // SAFETY: the call queries the pages without changing them.
    unsafe { libc::msync(page as *mut libc::c_void, len, libc::MS_ASYNC) == 0 }
}

/// Whether this process may write to all of the range, as far as the kernel tells.
pub(crate) fn is_writable(start: u64, bytes: u64) -> bool {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return true };
    // 7f0c8a000000-7f0c8a021000 rw-p 00000000 00:00 0
    let read_only = |line: &str| {
        let mut words = line.split_whitespace();
        let (first, last) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let inside = number(first)? < start + bytes && start < number(last)?;
        (inside && !words.next()?.contains('w')).then_some(())
    };
    maps.lines().find_map(read_only).is_none()
}
