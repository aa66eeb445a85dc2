//! Opens files, and holds the descriptors that readers and devices share.

use super::identity::FileIdentity;
use crate::error::{Error, ErrorKind, Result};
use crate::source::residency::resident_bytes;
use crate::sys::{open_nonblocking, open_regular};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, FsType, TMPFS_MAGIC, fstatfs};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// The files of sources, in messages.
pub(in crate::source) const SAFETENSORS: &str = "safetensors file";

/// The descriptors of one file. They are closed when the last reader is dropped.
#[derive(Debug)]
pub(in crate::source) struct OpenFile {
    path: PathBuf,
    pub identity: FileIdentity,
    pub buffered: Arc<File>,
    /// The descriptor for direct reads, opened at the first read. `Err` holds the reason why
    /// O_DIRECT is not used.
    direct: OnceLock<Result<Arc<File>, String>>,
    /// Whether a read was made by a thread, as it waits for the file system.
    pub is_cold: AtomicBool,
    /// The type of the file system, once that was asked for, if it is known.
    file_system: OnceLock<Option<FsType>>,
}

impl OpenFile {
    /// Opens the file at `path`, which must still have `identity`.
    ///
    /// # Errors
    /// As [`open_regular`]; [`Changed`](ErrorKind::Changed) if the identity differs.
    pub fn open(path: &Path, identity: FileIdentity) -> Result<Self> {
        let buffered = open_regular(path, SAFETENSORS)?;
        identity.check(&buffered, path)?;
        let (path, buffered) = (path.to_owned(), Arc::new(buffered));
        let (direct, is_cold) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { path, identity, buffered, direct, is_cold, file_system: OnceLock::new() })
    }

    /// Whether the file system is one of FUSE.
    pub fn is_fuse(&self) -> bool {
        self.file_system() == Some(FUSE_SUPER_MAGIC)
    }

    /// Whether the file is in memory, where no read waits.
    pub fn is_in_memory(&self) -> bool {
        self.file_system() == Some(TMPFS_MAGIC)
    }

    fn file_system(&self) -> Option<FsType> {
        let ask = || fstatfs(&self.buffered).map(|of| of.filesystem_type()).ok();
        *self.file_system.get_or_init(ask)
    }

    /// The path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the file was written to since it was opened.
    ///
    /// # Errors
    /// [`Changed`](ErrorKind::Changed), naming what changed.
    pub fn check_unchanged(&self) -> Result<()> {
        self.identity.check(&self.buffered, &self.path)
    }

    /// The descriptor for direct reads, opened at the first call.
    ///
    /// # Errors
    /// The reason why O_DIRECT is not used.
    pub fn direct(&self) -> Result<&Arc<File>, &String> {
        let opened = self.direct.get_or_init(|| open_direct(&self.path, &self.identity));
        opened.as_ref()
    }
}

/// A file opened for direct reads by a device, with a descriptor of its own. It also keeps the
/// source's descriptors open.
#[derive(Debug)]
pub struct DirectFile {
    direct: Arc<File>,
    open: Arc<OpenFile>,
}

impl DirectFile {
    /// Opens the file of `open` anew for direct reads.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the file system refuses direct reads.
    pub(in crate::source) fn open(open: Arc<OpenFile>) -> Result<Self> {
        let direct = open_direct(&open.path, &open.identity).map_err(|why| {
            let sentence = format!("{} refuses direct reads: {why}", open.path.display());
            Error::new(ErrorKind::Unsupported, sentence)
        })?;
        Ok(Self { direct, open })
    }

    /// The descriptor.
    pub fn descriptor(&self) -> &Arc<File> {
        &self.direct
    }

    /// The device number of the file system that holds the file.
    pub fn file_system(&self) -> u64 {
        self.open.identity.device
    }

    /// How many of the file's bytes the page cache holds.
    ///
    /// # Errors
    /// As [`resident_bytes`].
    pub fn resident_bytes(&self) -> io::Result<u64> {
        resident_bytes(&self.open.buffered, 0, self.open.identity.len_bytes)
    }
}

/// Opens `path` for direct reads, or returns the reason why that is not possible.
fn open_direct(path: &Path, identity: &FileIdentity) -> Result<Arc<File>, String> {
    let direct = open_nonblocking(path, libc::O_DIRECT).map_err(|refusal| refusal.to_string())?;
    // The path may have been replaced by another file.
    match FileIdentity::of(&direct) {
        Ok(now) if identity.is_still(&now) => Ok(Arc::new(direct)),
        _ => Err("the path leads to another file now".to_owned()),
    }
}
