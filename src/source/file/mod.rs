//! A local file as a source: direct, buffered or mapped.
//!
//! The upper half of the ladder is here: `direct -> buffered`. Each read chooses for itself:
//!
//! ```text
//! path is buffered, or direct was refused before ------------------> buffered
//! offset, address or length not aligned to the file's block -------> buffered
//! path is auto and the page cache holds (nearly) all of it --------> buffered
//! else ------------------------------------------------------------> O_DIRECT
//! ```
//!
//! No descriptor is kept between opening a checkpoint and reading it, so that 500 shards do not
//! need 500 descriptors. A file opened again must be the file whose header was read: device,
//! inode, length and modification time are compared, and again when an extent is complete.

mod direct;
mod identity;
mod reader;

pub use self::direct::DirectFile;
use self::identity::Identity;
use super::{Access, Reader, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::ring::{Mapping, PAGE_BYTES};
use crate::sys;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A regular file on a local (or mounted) file system.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    location: Location,
    identity: Identity,
    block_bytes: usize,
    /// The open file, shared by those who read it now.
    open: Mutex<Weak<OpenFile>>,
}

/// The descriptors of one file, closed when nobody reads it.
#[derive(Debug)]
struct OpenFile {
    buffered: Arc<File>,
    /// Opened for the first engine that reads; `Err` holds why O_DIRECT was refused.
    direct: OnceLock<Result<Arc<File>, String>>,
}

impl FileSource {
    /// Opens the file once to learn what it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`], or [`ErrorKind::InvalidInput`] for
    /// anything but a regular file (opening a FIFO would hang, reading a device would not end).
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let identity = Identity::of(&file).map_err(|e| Error::from_io(reading(path), e))?;
        Ok(Self {
            path: path.to_owned(),
            location: Location::from(path),
            identity,
            block_bytes: block_bytes(&file),
            open: Mutex::new(Weak::new()),
        })
    }

    /// As [`open`](Self::open), for a file that grows while it is read: its bytes are for the caller
    /// to check.
    pub(crate) fn open_growing(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        Ok(Self { identity: file.identity.growing(), ..file })
    }

    /// The descriptors, opened if nobody has them open now.
    fn opened(&self) -> Result<Arc<OpenFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.upgrade() {
            return Ok(file);
        }
        let buffered = open_regular(&self.path)?;
        self.identity.check(&buffered, &self.path)?;
        let file = Arc::new(OpenFile { buffered: Arc::new(buffered), direct: OnceLock::new() });
        *open = Arc::downgrade(&file);
        Ok(file)
    }

    /// The descriptor for direct reads, or why there is none.
    fn direct<'a>(&self, open: &'a OpenFile) -> Result<&'a Arc<File>, &'a String> {
        open.direct.get_or_init(|| self.open_direct().map(Arc::new)).as_ref()
    }

    /// A new descriptor for direct reads, or why there is none.
    fn open_direct(&self) -> Result<File, String> {
        let direct = open_direct(&self.path).map_err(|refusal| refusal.to_string())?;
        // The path may have been pointed at another file since.
        match Identity::of(&direct) {
            Ok(now) if self.identity.is_still(&now) => Ok(direct),
            _ => Err("the path leads to another file now".to_owned()),
        }
    }
}

impl Source for FileSource {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn len_bytes(&self) -> u64 {
        self.identity.len_bytes
    }

    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.opened().map_err(io::Error::other)?;
        file.buffered.read_exact_at(into, offset)
    }

    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>> {
        let open = self.opened()?;
        Ok(Box::new(reader::FileReader::new(self, open, access.backend.clone(), access.path)))
    }

    fn map(&self) -> Result<Mapping> {
        let open = self.opened()?;
        Mapping::of_file(&open.buffered, self.identity.len_bytes as usize)
            .map_err(|e| Error::from_io(format_args!("map {}", self.path.display()), e))
    }

    fn direct_file(&self) -> Result<DirectFile> {
        let open = self.opened()?;
        let direct = self.open_direct().map_err(|why| {
            let sentence = format!("{} refuses direct reads: {why}", self.path.display());
            Error::new(ErrorKind::Unsupported, sentence)
        })?;
        Ok(DirectFile { direct: Arc::new(direct), open, identity: self.identity })
    }

    fn check_unchanged(&self) -> Result<()> {
        self.identity.check(&self.opened()?.buffered, &self.path)
    }
}

/// Opens `path` for reading if it is a regular file, without ever blocking on a FIFO.
fn open_regular(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|e| Error::from_io(opening(path), e))?;
    let kind = file.metadata().map_err(|e| Error::from_io(opening(path), e))?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    use std::os::unix::fs::FileTypeExt;
    let what = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "not a regular file",
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{} is {what}; name a regular safetensors file", path.display()),
    ))
}

fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

/// What direct reads of `file` are aligned to: at least a page, so that slots are.
fn block_bytes(file: &File) -> usize {
    let told = sys::direct_alignment(file)
        .map_or(0, |alignment| alignment.memory_bytes.max(alignment.offset_bytes));
    (told as usize).next_power_of_two().max(PAGE_BYTES)
}

fn opening(path: &Path) -> String {
    format!("open {}", path.display())
}

fn reading(path: &Path) -> String {
    format!("read {}", path.display())
}
