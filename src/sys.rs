//! Opening files and starting threads safely, the limits of control groups, and system calls that have
//! no safe wrapper yet: `cachestat(2)`, `statx(2)` for the direct-I/O alignment of a file,
//! `preadv2(2)` for reads that do not wait, and `setsockopt(2)` for the low-water mark of a socket.

mod cgroup;
mod low_water;
mod open;
mod output;
mod system_memory;
mod threads;

pub use cgroup::cgroup_memory;
pub(crate) use low_water::set_receive_low_water;
#[cfg(any(feature = "gcs", feature = "azure"))]
pub use open::check_named;
pub(crate) use open::open_nonblocking;
pub use open::{open_regular, read_named, read_regular, read_small, read_small_text};
pub use output::OutputFile;
pub use system_memory::system_memory;
pub(crate) use threads::on_own_thread;
pub use threads::{spawn, spawn_scoped};

use std::ffi::c_long;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// The number of cachestat(2), which is the same on every architecture. Available since Linux 6.5.
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

/// Reads into `into` from `offset` what is in the page cache there, without waiting for the rest.
///
/// # Errors
/// `EAGAIN` if the first byte is not there, `EOPNOTSUPP` on file systems that cannot tell (tmpfs, FUSE, NFS).
pub(crate) fn read_cached(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let parts = [io::IoSliceMut::new(into)];
    // SAFETY: an `IoSliceMut` has the layout of an iovec; it and its memory live across the call.
    let read = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            parts.as_ptr().cast(),
            1,
            offset as libc::off_t,
            libc::RWF_NOWAIT,
        )
    };
    if read >= 0 { Ok(read as usize) } else { Err(io::Error::last_os_error()) }
}

/// Returns how many pages of the `len` bytes from `offset` are in the page cache.
///
/// # Errors
/// `ENOSYS` before Linux 6.5, `EOPNOTSUPP` on hugetlbfs, `EPERM` under some seccomp profiles.
pub(crate) fn cached_pages(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    let range = CachestatRange { offset, len };
    let mut stat = Cachestat::default();
    // SAFETY: both structs have the layout of linux/mman.h and live across the call.
    let answer = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0)
    };
    if answer == 0 { Ok(stat.cached_pages) } else { Err(io::Error::last_os_error()) }
}

/// The alignment that direct I/O on a file requires, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectAlignment {
    pub memory_bytes: u32,
    pub offset_bytes: u32,
}

/// Returns the file's direct-I/O alignment, or `None` if the kernel (before 6.1) or the file system
/// does not report it. Zeroes mean that the file does not support direct I/O.
pub(crate) fn direct_alignment(file: &File) -> Option<DirectAlignment> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an empty path with AT_EMPTY_PATH refers to the descriptor; `stat` is large enough.
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
