//! Memory from the kernel: mapped, huge-page aligned, faulted in ahead, returned.
//!
//! A [`Mapping`] is either anonymous (ring memory) or the pages of a file (the mapped read path). It
//! is plain address space; [`super::slot`] controls who may write to which part of it.
//! Sources: mmap(2), madvise(2), mlock(2), mbind(2).

use super::lending::copy_lent;
use crate::error::{Error, ErrorKind, Result, Size};
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap,
};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;

/// The page size; slots start and end at multiples of at least this.
pub const PAGE_BYTES: usize = 4096;

/// The size of a transparent huge page on the machines this runs on.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A private mapping of memory or of a file; unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    /// The address that mmap returned.
    base: NonNull<c_void>,
    base_bytes: usize,
    /// The first usable byte: huge-page aligned for anonymous memory.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is address space without thread affinity; every access to its bytes goes
// through `unsafe` functions whose callers uphold exclusivity.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods taking `&self` only talk to the kernel about the range.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes of zeroed memory, aligned to and advised for huge pages.
    ///
    /// Memory is only used when it is first written to or [populated](Self::populate_write).
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when the address space or overcommit limit does not allow it.
    pub fn anonymous(len: usize) -> Result<Self> {
        let base_bytes = len
            .checked_add(HUGE_PAGE_BYTES)
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| out_of_memory(len, nix::Error::ENOMEM))?;
        let mut flags = MapFlags::MAP_PRIVATE;
        flags.set(MapFlags::MAP_NORESERVE, !cfg!(miri)); // Miri does not support it
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap_anonymous(None, base_bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags)
        }
        .map_err(|errno| out_of_memory(len, errno))?;
        let skip = base.as_ptr().cast::<u8>().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `skip` < HUGE_PAGE_BYTES and the mapping is HUGE_PAGE_BYTES longer than `len`.
        let start = unsafe { base.cast::<u8>().add(skip) };
        let mapping = Self { base, base_bytes: base_bytes.get(), start, len };
        mapping.advise(0..len, MmapAdvise::MADV_HUGEPAGE).ok(); // best effort: THP may be off
        Ok(mapping)
    }

    /// Maps the first `len` bytes of `file`, read-only.
    ///
    /// # Errors
    /// The errors of mmap(2).
    pub fn of_file(file: &File, len: usize) -> io::Result<Self> {
        Self::of_file_at(file, 0, len)
    }

    /// Maps `len` bytes of `file` from `offset`, a multiple of the page size, read-only.
    pub(crate) fn of_file_at(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        Self::of_file_by(ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, offset, len)
    }

    /// Maps the first `len` bytes of `file`, so that foreign code may write to the memory: the kernel
    /// then copies the page for this process, and the file stays as it is.
    pub(crate) fn private_of_file(file: &File, len: usize) -> io::Result<Self> {
        let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Memory for copies of pages is not reserved: few programs write to weights.
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        Self::of_file_by(writable, flags, file, 0, len)
    }

    /// The same, where the file system permits a shared mapping: not if reads pass by the page cache.
    pub(crate) fn of_cached_file_at(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        Self::of_file_by(ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, offset, len)
    }

    fn of_file_by(
        protection: ProtFlags,
        flags: MapFlags,
        file: &File,
        offset: u64,
        len: usize,
    ) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing in this process.
        // That other processes may change the file is stated where the mapped path is documented
        // (`ReadPath::Mapped`).
        let base = unsafe { mmap(None, bytes, protection, flags, file, offset as i64) }?;
        let mapping = Self { base, base_bytes: len, start: base.cast(), len };
        mapping.advise(0..len, MmapAdvise::MADV_HUGEPAGE).ok(); // best effort: file THP
        Ok(mapping)
    }

    /// Makes the kernel allocate pages that are faulted in from now on from the NUMA node `node`,
    /// as long as that node has free pages.
    ///
    /// # Errors
    /// ENOSYS or EPERM where the kernel or a container does not permit it; EINVAL if there is no such
    /// node.
    pub(super) fn prefer_node(&self, node: usize) -> io::Result<()> {
        const WORD_BITS: usize = libc::c_ulong::BITS as usize;
        let mut nodes = vec![0 as libc::c_ulong; node / WORD_BITS + 1];
        nodes[node / WORD_BITS] |= 1 << (node % WORD_BITS);
        // The kernel reads one bit less than this number.
        let bits = nodes.len() * WORD_BITS + 1;
        // SAFETY: the range is this mapping's, and the mask has as many bits as the call says; a
        // policy for future pages does not change mapped ones.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.len.next_multiple_of(PAGE_BYTES),
                libc::MPOL_PREFERRED,
                nodes.as_ptr(),
                bits,
                0,
            )
        };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The usable length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of byte 0.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Faults `range` in for writing (zeroed memory, huge pages where possible), from the calling
    /// thread. Pages that are present keep their bytes; reads may write to the same range meanwhile.
    ///
    /// # Errors
    /// EINVAL on kernels before 5.14; ENOMEM when memory ran out.
    pub fn populate_write(&self, range: Range<usize>) -> io::Result<()> {
        self.advise(range, MmapAdvise::MADV_POPULATE_WRITE)
    }

    /// Faults `range` in for reading: for a file mapping this reads the file.
    ///
    /// # Errors
    /// EFAULT past the end of the file (it shrank), EIO when the storage failed, EINVAL on kernels
    /// before 5.14.
    pub fn populate_read(&self, range: Range<usize>) -> io::Result<()> {
        self.advise(range, MmapAdvise::MADV_POPULATE_READ)
    }

    /// Faults `range` in for reading, and keeps its pages in memory until the mapping is dropped. Of a
    /// file, these are the pages of the page cache. A mapping that is private and writable gets copies.
    ///
    /// # Errors
    /// ENOMEM beyond the limit of locked memory or past the end of a file that shrank, EPERM where
    /// nothing may be locked, EAGAIN where memory ran out.
    pub(crate) fn lock(&self, range: Range<usize>) -> io::Result<()> {
        // All reads begin before the lock waits for the first of them; without this, the kernel reads
        // ahead by a short length.
        self.advise(range.clone(), MmapAdvise::MADV_WILLNEED).ok();
        // SAFETY: the pages lie within this mapping, as `advise` has checked, and a lock changes neither
        // addresses nor contents. The kernel rounds the address down to a page.
        unsafe { mlock(self.start.add(range.start).cast(), range.end - range.start) }?;
        Ok(())
    }

    /// The number of pages in memory, by mincore(2). For a file mapping these are the pages in the
    /// page cache.
    pub(crate) fn resident_pages(&self) -> io::Result<usize> {
        let mut pages = vec![0_u8; self.len.div_ceil(4096)];
        // SAFETY: the range is this mapping's and `pages` has one byte for each of its pages.
        let answer =
            unsafe { libc::mincore(self.start.as_ptr().cast(), self.len, pages.as_mut_ptr()) };
        match answer {
            0 => Ok(pages.iter().filter(|&&page| page & 1 == 1).count()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the whole pages inside `range` to the kernel. Their contents are lost.
    pub(super) fn discard(&self, range: Range<usize>) {
        let page = 4096;
        let inner = range.start.next_multiple_of(page)..range.end / page * page;
        if !inner.is_empty() {
            self.advise(inner, MmapAdvise::MADV_DONTNEED).ok(); // best effort: memory only
        }
    }

    fn advise(&self, range: Range<usize>, advice: MmapAdvise) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len);
        if cfg!(miri) {
            return Ok(()); // Miri has no madvise; only MADV_DONTNEED has a visible effect
        }
        let page = 4096;
        let start = range.start / page * page;
        // SAFETY: the pages lie within this mapping (its length is rounded up to pages by the
        // kernel). Of the advice used here only MADV_DONTNEED changes contents; `discard` is
        // called by the slot allocator for bytes that no slot has.
        unsafe { madvise(self.start.add(start).cast(), range.end - start, advice) }?;
        Ok(())
    }

    /// The bytes of `range`.
    ///
    /// # Safety
    /// Neither this process nor the kernel on its behalf writes to the range while the slice lives.
    pub(super) unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds, readable, initialised by the kernel (zeroes or the file's bytes); the
        // caller rules out concurrent writes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.len()) }
    }

    /// The bytes of a file mapping.
    ///
    /// If another process rewrites the file in place, the bytes change. If it truncates the file,
    /// access to the lost part kills this process (SIGBUS). That is the known price of mmap, and why
    /// [`ReadPath::Auto`](crate::ReadPath::Auto) maps only files that do not change.
    pub(crate) fn file_bytes(&self, range: Range<usize>) -> &[u8] {
        // SAFETY: no windows are made over a file mapping. Most are read-only; into a private one only
        // consumers of writable exports write, and then nobody reads slices (`Tensor::export_writable`).
        unsafe { self.bytes(range) }
    }

    /// Copies the bytes from `start` on, which foreign code may be changing meanwhile.
    ///
    /// # Panics
    /// When the mapping has fewer bytes.
    pub(crate) fn copy_to(&self, start: usize, into: &mut [u8]) {
        assert!(start <= self.len && into.len() <= self.len - start, "beyond the mapping's end");
        // SAFETY: in bounds and alive as long as `self`; no Rust code writes to a file mapping.
        unsafe { copy_lent(self.start.add(start), into) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned; every view of it holds the owner of this mapping.
        let unmapped = unsafe { munmap(self.base, self.base_bytes) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

fn out_of_memory(len: usize, errno: nix::Error) -> Error {
    let sentence = format!(
        "cannot reserve {} of memory; set a smaller memory limit, or raise ulimit -v",
        Size(len as u64)
    );
    Error::new(ErrorKind::OutOfMemory, sentence).with_source(io::Error::from(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_zeroed_and_huge_page_aligned() {
        let mapping = Mapping::anonymous(3 << 20).unwrap();
        assert_eq!(mapping.start().as_ptr() as usize % HUGE_PAGE_BYTES, 0);
        // SAFETY: nobody writes to this mapping.
        let bytes = unsafe { mapping.bytes(0..mapping.len()) };
        let stride = if cfg!(miri) { 4096 } else { 1 }; // Miri would take minutes
        assert!(bytes.iter().step_by(stride).all(|&byte| byte == 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memory policies")]
    fn pages_prefer_a_node_that_there_is_and_no_other() {
        let mapping = Mapping::anonymous((1 << 20) + 1).unwrap();
        match mapping.prefer_node(0) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => return,
            outcome => outcome.unwrap(),
        }
        let start = format!("{:x} prefer", mapping.start().as_ptr() as usize);
        let policies = std::fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
        assert!(policies.is_empty() || policies.contains(&start), "{start}: {policies}");
        mapping.populate_write(0..mapping.len()).unwrap();
        assert!(mapping.prefer_node(1000).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no file mappings")]
    fn populating_past_a_shrunken_file_is_an_error_not_a_crash() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 10).unwrap();
        let mapping = Mapping::of_file(&file, 64 << 10).unwrap();
        mapping.populate_read(0..64 << 10).unwrap();
        file.set_len(4 << 10).unwrap();
        assert!(mapping.populate_read(0..64 << 10).is_err());
        assert_eq!(mapping.file_bytes(0..4096), &[0; 4096]);
    }
}
