//! Queries how much of a file is in the page cache, with `cachestat(2)`, or `mincore(2)` on older
//! kernels, and brings parts of a file into it.
//!
//! O_DIRECT on a cached file is several times slower than copying from the cache, and reading an
//! uncached file through the cache costs a copy. So each read checks first. If the result is out of
//! date when it is used, the read is slower but still correct.
//!
//! A mapping that is advised for huge pages is read ahead by 4 MiB (Linux 5.18 and later), where a
//! read waits for 128 KiB at a time. On a FUSE mount these are 4 requests of 1 MiB side by side,
//! instead of one of 128 KiB after the other.

use crate::ring::{HUGE_PAGE_BYTES, Mapping, PAGE_BYTES};
use crate::sys;
use std::fs::File;
use std::io;

/// The number of bytes among the `len` bytes from `offset` that are in the page cache, in whole
/// pages.
///
/// # Errors
/// When neither system call is permitted.
pub fn resident_bytes(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    let pages = match sys::cached_pages(file, offset, len) {
        Ok(pages) => pages,
        Err(_) => by_mincore(file, offset, len)?,
    };
    Ok((pages * PAGE_BYTES as u64).min(len))
}

/// Brings the `len` bytes from `offset`, which lie within the file, into the page cache, or begins to:
/// the read that follows waits for the rest.
///
/// One page of each huge page is faulted in, so that hardly any of the cache counts as this process's
/// memory. Errors are ignored, as the read reports them. A file that is always read past the page cache
/// (`FOPEN_DIRECT_IO` of FUSE) cannot be mapped in this way.
pub(super) fn bring_in(file: &File, offset: u64, len: u64) {
    let first = offset / PAGE_BYTES as u64 * PAGE_BYTES as u64;
    let bytes = (offset + len - first) as usize;
    let Ok(mapping) = Mapping::of_cached_file_at(file, first, bytes) else { return };
    let into_huge_page = (first % HUGE_PAGE_BYTES as u64) as usize;
    let later = (HUGE_PAGE_BYTES - into_huge_page..bytes).step_by(HUGE_PAGE_BYTES);
    for at in std::iter::once(0).chain(later) {
        if mapping.populate_read(at..at + 1).is_err() {
            return;
        }
    }
}

fn by_mincore(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    let end = (offset + len).min(file.metadata()?.len());
    let first = offset / PAGE_BYTES as u64 * PAGE_BYTES as u64;
    if end <= first {
        return Ok(0);
    }
    let mapping = Mapping::of_file_at(file, first, (end - first) as usize)?;
    mapping.resident_pages().map(|pages| pages as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn mincore_and_cachestat_agree_on_a_file_just_written() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        assert_eq!(by_mincore(&file, 0, 1 << 20).unwrap(), 256);
        assert_eq!(by_mincore(&file, 8192, 100_000).unwrap(), 25);
        assert_eq!(resident_bytes(&file, 0, 1 << 20).unwrap(), 1 << 20);
        assert_eq!(by_mincore(&file, 2 << 20, 4096).unwrap(), 0);
    }
}
