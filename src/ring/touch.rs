//! Lets the host of a virtual machine supply mapped pages before the program that uses them does.
//!
//! A host may give a virtual machine memory only when its processor first touches it, and take back
//! what was free for a while (free page reporting). A device that writes to such memory does not touch
//! it in this sense: each page of a file that was just read then costs its first reader some
//! microseconds, several times what reading the page from a disk takes. So threads that read ahead
//! touch the pages, too, which they do while others wait for the disk.
//!
//! The pages are touched by process_vm_readv(2) of this process: where the file was truncated
//! meanwhile, the call fails, and no signal kills the process. That takes 0.1 s of processor time for a
//! GB that is there already. Trying a few pages of each huge page would take less, and misses half of
//! what is not there.

use super::memory::{Mapping, PAGE_BYTES};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::io::IoSliceMut;
use std::ops::Range;

/// How many pages one call touches. The kernel takes 1024 at most.
const PAGES: usize = 512;

impl Mapping {
    /// Touches the pages of `range`, which was populated. Ends early where that is not permitted, or the
    /// file was truncated.
    pub(crate) fn touch(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len());
        let address = self.start().as_ptr() as usize;
        let mut start = (address + range.start) / PAGE_BYTES * PAGE_BYTES;
        while start < address + range.end {
            let end = (start + PAGES * PAGE_BYTES).min(address + range.end);
            if !read(start..end) {
                return;
            }
            start = end;
        }
    }
}

/// Reads a byte of each page. Returns whether all could be read.
fn read(addresses: Range<usize>) -> bool {
    let mut bytes = [0; PAGES];
    let pages = addresses.step_by(PAGE_BYTES);
    let remote: Vec<_> = pages.map(|base| RemoteIoVec { base, len: 1 }).collect();
    let into = &mut bytes[..remote.len()];
    process_vm_readv(Pid::this(), &mut [IoSliceMut::new(into)], &remote) == Ok(remote.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that reads ahead must not be killed where a program truncates the file.
    #[test]
    #[cfg_attr(miri, ignore = "Miri has no file mappings")]
    fn pages_of_a_truncated_file_are_not_touched_and_kill_nobody() {
        let len = 3 * PAGES * PAGE_BYTES + 5;
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        let mapping = Mapping::of_file(&file, len).unwrap();
        let start = mapping.start().as_ptr() as usize;
        mapping.populate_read(0..len).unwrap();
        assert!(read(start..start + PAGES * PAGE_BYTES));
        assert!(read(start + 1..start + 2));
        mapping.touch(7..len);
        file.set_len(PAGE_BYTES as u64).unwrap();
        assert!(!read(start..start + PAGES * PAGE_BYTES));
        mapping.touch(7..len);
        mapping.touch(len..len);
    }
}
