//! The files of one entry, open.
//!
//! They are open only while somebody reads or writes them, so that a checkpoint of 500 shards does
//! not need a thousand descriptors.

use super::pages::{MISSING, SEAL_BYTES, from_bytes, to_bytes};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an entry is.
pub(super) const ENTRY: &str = "entry";
/// Its pages' seals.
pub(super) const PAGES: &str = "pages";
/// Its bytes, while some are missing.
pub(super) const PARTIAL: &str = "partial";
/// Its bytes, all of them.
pub(super) const DATA: &str = "data.safetensors";
/// When it was last used.
pub(super) const USED: &str = "used";

/// Direct writes begin and end at multiples of this, as pages do; a file system that wants more
/// refuses, and is written to through the page cache.
const DIRECT_BYTES: u64 = 4096;

/// The seals and the bytes of one entry.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    pages: File,
    data: File,
    direct: OnceLock<Option<File>>,
    direct_refused: AtomicBool,
    /// Whether they may be written to.
    pub writable: bool,
    /// Whether anything went through the page cache since it was last told to forget.
    buffered: AtomicBool,
}

impl Files {
    /// Opens those in `directory`, for writing too if that is asked for and allowed.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(directory: &Path, writable: bool) -> io::Result<Self> {
        let path = data_path(directory)?;
        let open = |writable| {
            let open = |path: &Path| {
                let mut options = OpenOptions::new();
                options.read(true).write(writable).custom_flags(libc::O_CLOEXEC).open(path)
            };
            Ok((open(&directory.join(PAGES))?, open(&path)?, writable))
        };
        // Another user's files may be there to be read only.
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

    /// Whether their lengths are those of an object of `len_bytes` and so many pages.
    pub fn fit(&self, len_bytes: u64, pages: u64) -> bool {
        let len = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
        len(&self.data) == len_bytes && len(&self.pages) == pages * SEAL_BYTES
    }

    /// The seals of `pages`.
    ///
    /// # Errors
    /// What the system says.
    pub fn seals(&self, pages: &Range<u64>) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; ((pages.end - pages.start) * SEAL_BYTES) as usize];
        self.pages.read_exact_at(&mut bytes, pages.start * SEAL_BYTES)?;
        Ok(from_bytes(&bytes))
    }

    /// Sets the seals from page `first` on.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_seals(&self, first: u64, seals: &[u64]) -> io::Result<()> {
        self.pages.write_all_at(&to_bytes(seals), first * SEAL_BYTES)
    }

    /// The first missing one of the `pages`.
    ///
    /// # Errors
    /// What the system says.
    pub fn first_missing(&self, pages: Range<u64>) -> io::Result<Option<u64>> {
        const AT_ONCE: u64 = 8 << 10;
        let mut first = pages.start;
        while first < pages.end {
            let end = pages.end.min(first + AT_ONCE);
            let seals = self.seals(&(first..end))?;
            if let Some(at) = seals.iter().position(|&seal| seal == MISSING) {
                return Ok(Some(first + at as u64));
            }
            first = end;
        }
        Ok(None)
    }

    /// Reads bytes through the page cache.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.data.read_exact_at(into, offset)
    }

    /// Writes `bytes` at `offset`, a page's start: directly what can be.
    ///
    /// # Errors
    /// What the system says.
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

    /// Brings all to the disk, and takes it out of the page cache.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.data.sync_data()?;
        if self.buffered.swap(false, Ordering::Relaxed) {
            self.forget(0, 0);
        }
        self.pages.sync_data()
    }

    /// Tells the page cache to forget these bytes.
    pub fn forget(&self, offset: u64, len: u64) {
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // Advice: whether it is taken is the kernel's affair.
        let _ = posix_fadvise(&self.data, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    /// When a seal was last set.
    pub fn changed(&self) -> Option<std::time::SystemTime> {
        self.pages.metadata().and_then(|metadata| metadata.modified()).ok()
    }
}

/// The file of the bytes in `directory`, whatever it is called now.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where there is none.
pub(super) fn data_path(directory: &Path) -> io::Result<PathBuf> {
    // It may be renamed between two looks, in one direction only.
    let names = [DATA, PARTIAL, DATA];
    let found = names.iter().map(|name| directory.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// `data` opened once more for direct writes. By its descriptor: its name may change.
fn open_direct(path: &Path, data: &File) -> Option<File> {
    use std::os::fd::AsRawFd;
    let open = |path: &Path| {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
            .open(path)
            .ok()
    };
    open(Path::new(&format!("/proc/self/fd/{}", data.as_raw_fd()))).or_else(|| {
        let direct = open(path)?;
        let same = |a: fs::Metadata, b: fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            (a.dev(), a.ino()) == (b.dev(), b.ino())
        };
        same(direct.metadata().ok()?, data.metadata().ok()?).then_some(direct)
    })
}
