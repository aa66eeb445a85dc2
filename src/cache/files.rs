//! The open files of one entry.
//!
//! They are open only while they are read or written, so that a checkpoint of 500 shards does not
//! need a thousand descriptors.

use super::pages::{CHECKSUM_BYTES, MISSING, PageChecksums, from_bytes, to_bytes};
use super::root::{CacheRoot, is_same_file};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The entry's metadata; its modification time is when the object's store last validated it.
pub(super) const ENTRY: &str = "entry";
/// The checksums of the object's pages.
pub(super) const PAGES: &str = "pages";
/// The object's bytes while pages are missing.
pub(super) const PARTIAL: &str = "partial";
/// The object's bytes once no page is missing.
pub(super) const DATA: &str = "data.safetensors";
/// An empty file; its modification time is when the entry was last used.
pub(super) const USED: &str = "used";

/// The names of all files of an entry.
pub(super) const NAMES: [&str; 5] = [ENTRY, PAGES, PARTIAL, DATA, USED];

/// Direct writes begin and end at multiples of this, as pages do. Where the file system needs
/// larger blocks, it refuses direct writes, and the writes go through the page cache.
const DIRECT_BYTES: u64 = 4096;

/// The files of the checksums and of the bytes of one entry.
#[derive(Debug)]
pub(super) struct EntryFiles {
    path: PathBuf,
    pages: File,
    data: File,
    direct: OnceLock<Option<File>>,
    direct_refused: AtomicBool,
    /// Whether the files are open for writing.
    pub writable: bool,
    /// Whether anything was written through the page cache since the last sync.
    buffered: AtomicBool,
}

impl EntryFiles {
    /// Opens the files of the entry in `directory`; for writing too if `writable` is set and the
    /// file system permits it.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn open(root: &CacheRoot, directory: &Path, writable: bool) -> io::Result<Self> {
        let path = data_path(root, directory)?;
        let open = |writable| {
            let pages = root.file(&directory.join(PAGES), writable)?;
            Ok((pages, root.file(&path, writable)?, writable))
        };
        // Files that belong to another user may be read-only.
        let opened =
            if writable { open(true).or_else(|_: io::Error| open(false)) } else { open(false) };
        let (pages, data, writable) = opened?;
        Ok(Self {
            path,
            pages,
            data,
            writable,
            direct: OnceLock::new(),
            direct_refused: AtomicBool::new(false),
            buffered: AtomicBool::new(false),
        })
    }

    /// Whether the files have the lengths that belong to an object with these checksums.
    pub fn fit(&self, checksums: &PageChecksums) -> bool {
        let len = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
        len(&self.data) == checksums.len_bytes
            && len(&self.pages) == checksums.pages() * CHECKSUM_BYTES
    }

    /// The checksums of `pages`.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn checksums(&self, pages: &Range<u64>) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; ((pages.end - pages.start) * CHECKSUM_BYTES) as usize];
        self.pages.read_exact_at(&mut bytes, pages.start * CHECKSUM_BYTES)?;
        Ok(from_bytes(&bytes))
    }

    /// Sets the checksums from page `first` on.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn set_checksums(&self, first: u64, checksums: &[u64]) -> io::Result<()> {
        self.pages.write_all_at(&to_bytes(checksums), first * CHECKSUM_BYTES)
    }

    /// The first of the `pages` that is missing.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn first_missing(&self, pages: Range<u64>) -> io::Result<Option<u64>> {
        const AT_ONCE: u64 = 8 << 10;
        let mut first = pages.start;
        while first < pages.end {
            let end = pages.end.min(first + AT_ONCE);
            let checksums = self.checksums(&(first..end))?;
            if let Some(at) = checksums.iter().position(|&checksum| checksum == MISSING) {
                return Ok(Some(first + at as u64));
            }
            first = end;
        }
        Ok(None)
    }

    /// Reads bytes through the page cache.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.data.read_exact_at(into, offset)
    }

    /// Writes `bytes` at `offset`, the start of a page, with direct I/O where that is possible.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let aligned = (bytes.as_ptr() as u64 | offset).is_multiple_of(DIRECT_BYTES);
        let whole =
            if aligned { bytes.len() / DIRECT_BYTES as usize * DIRECT_BYTES as usize } else { 0 };
        let (whole, rest) = bytes.split_at(whole);
        if !whole.is_empty() {
            self.write_whole(whole, offset)?;
        }
        if !rest.is_empty() {
            self.buffered.store(true, Ordering::Relaxed);
            self.data.write_all_at(rest, offset + whole.len() as u64)?;
        }
        Ok(())
    }

    fn write_whole(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let direct = self.direct.get_or_init(|| open_direct(&self.path, &self.data));
        if let Some(direct) = direct
            && !self.direct_refused.load(Ordering::Relaxed)
        {
            match direct.write_all_at(bytes, offset) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        self.buffered.store(true, Ordering::Relaxed);
        self.data.write_all_at(bytes, offset)
    }

    /// Syncs everything to the disk, and removes it from the page cache.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn sync(&self) -> io::Result<()> {
        self.data.sync_data()?;
        if self.buffered.swap(false, Ordering::Relaxed) {
            self.drop_from_page_cache(0, 0);
        }
        self.pages.sync_data()
    }

    /// Removes these bytes from the page cache; a length of 0 stands for the rest of the file.
    pub fn drop_from_page_cache(&self, offset: u64, len: u64) {
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // An error does not matter: this is only advice to the kernel.
        let _ = posix_fadvise(&self.data, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    /// When a checksum was last set.
    pub fn modified(&self) -> Option<std::time::SystemTime> {
        self.pages.metadata().and_then(|metadata| metadata.modified()).ok()
    }
}

/// The path of the data file of the entry in `directory`, whichever name it has now.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if the entry has no data file.
pub(super) fn data_path(root: &CacheRoot, directory: &Path) -> io::Result<PathBuf> {
    // The file may be renamed from `PARTIAL` to `DATA` between two checks, never back.
    let names = [DATA, PARTIAL, DATA];
    let found = names.iter().map(|name| directory.join(name)).find(|path| root.has_file(path));
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Opens `data` again for direct writes, through its descriptor, as its name may change.
fn open_direct(path: &Path, data: &File) -> Option<File> {
    use std::os::fd::AsRawFd;
    let open = |path: &Path| {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .ok()
            .filter(|direct| is_same_file(direct, data))
    };
    open(Path::new(&format!("/proc/self/fd/{}", data.as_raw_fd()))).or_else(|| open(path))
}
