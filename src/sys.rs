//! Two system calls that no safe wrapper covers yet: `cachestat(2)` and `statx(2)`'s direct-I/O
//! alignment. Nothing here keeps state.

use std::ffi::c_long;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// cachestat(2) has one number on every architecture (it came with Linux 6.5).
const SYS_CACHESTAT: c_long = 451;

#[repr(C)]
struct CachestatRange {
    offset: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached_pages: u64,
    dirty_pages: u64,
    writeback_pages: u64,
    evicted_pages: u64,
    recently_evicted_pages: u64,
}

/// How many pages of `len` bytes from `offset` the page cache holds.
///
/// # Errors
/// ENOSYS before Linux 6.5, EOPNOTSUPP on hugetlbfs, EPERM under some seccomp profiles.
pub(crate) fn cached_pages(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    let range = CachestatRange { offset, len };
    let mut stat = Cachestat::default();
    // SAFETY: both structs have the layout of linux/mman.h and live across the call.
    let answer = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0)
    };
    if answer == 0 { Ok(stat.cached_pages) } else { Err(io::Error::last_os_error()) }
}

/// What direct I/O on a file must be aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectAlignment {
    pub memory_bytes: u32,
    pub offset_bytes: u32,
}

/// The file's direct-I/O alignment, if kernel (6.1) and file system tell; zeroes: no direct I/O.
pub(crate) fn direct_alignment(file: &File) -> Option<DirectAlignment> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an empty path with AT_EMPTY_PATH asks about the descriptor; `stat` is large enough.
    let answer = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    if answer != 0 {
        return None;
    }
    // SAFETY: zeroed above and filled by the kernel; every bit pattern is valid.
    let stat = unsafe { stat.assume_init() };
    (stat.stx_mask & libc::STATX_DIOALIGN != 0).then_some(DirectAlignment {
        memory_bytes: stat.stx_dio_mem_align,
        offset_bytes: stat.stx_dio_offset_align,
    })
}
