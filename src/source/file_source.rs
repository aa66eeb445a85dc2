//! A local file as a source: direct, buffered or mapped.
//!
//! The first step of the fallback chain is here: `direct -> buffered`. Each read chooses for itself:
//!
//! ```text
//! path is buffered, or direct was refused before ------------------> buffered
//! offset, address or length not aligned to the file's block -------> buffered
//! path is auto and the page cache holds (nearly) all of it --------> buffered
//! else ------------------------------------------------------------> O_DIRECT
//! ```
//!
//! No descriptor is kept between opening a checkpoint and reading it, so 500 shards do not need 500
//! descriptors. A file that is opened again must be the file whose header was read: device, inode,
//! length and times are compared, and again when an extent is complete (see `file/identity.rs`).

use super::cancellation::Cancellation;
use super::file::{DirectFile, FileIdentity, MappedFile, OpenFile, SAFETENSORS};
use super::file_reader::FileReader;
use super::residency::resident_bytes;
use super::traits::{Access, Reader, Source};
use super::verify::{ChecksumVerifier, ExpectedSum, local_sums};
use crate::error::{Error, ErrorKind, Result, option};
use crate::location::Location;
use crate::options::PinBy;
use crate::ring::{HUGE_PAGE_BYTES, Mapping, PAGE_BYTES};
use crate::sync::Mutex;
use crate::sys;
use std::any::Any;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// The length of reads that threads make: of a file that refuses direct I/O, one page fault brings in
/// as much at least. Shorter ones than others, as many are made at a time.
const COLD_READ_BYTES: u64 = HUGE_PAGE_BYTES as u64;
/// How much of a file tells whether it is in the page cache.
const BEGINNING_BYTES: u64 = 1 << 20;

/// A regular file on a local (or mounted) file system.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    location: Location,
    identity: FileIdentity,
    block_bytes: usize,
    /// The verifier, which has seen the bytes that were read at opening. `None` if the file is not
    /// verified.
    verifier: Option<Arc<ChecksumVerifier>>,
    /// The open file, shared by its current readers.
    open: Mutex<Weak<OpenFile>>,
}

impl FileSource {
    /// Opens the file to learn its identity and alignment, and closes it again.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied), or
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for anything but a regular file (opening a
    /// FIFO would block, reading a device would not end).
    pub fn open(path: &Path) -> Result<Self> {
        let file = sys::open_regular(path, SAFETENSORS)?;
        let identity = FileIdentity::of(&file)
            .map_err(|e| Error::from_io(format_args!("read {}", path.display()), e))?;
        Ok(Self {
            path: path.to_owned(),
            location: Location::from(path),
            identity,
            block_bytes: block_bytes(&file),
            verifier: None,
            open: Mutex::default(),
        })
    }

    /// As [`open`](Self::open), for a file that is written to while it is read. The caller checks
    /// its bytes.
    pub(crate) fn open_growing(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        Ok(Self { identity: file.identity.timeless(), ..file })
    }

    /// Whether this is the file that `open` is.
    pub(crate) fn is(&self, open: &File) -> bool {
        FileIdentity::of(open).is_ok_and(|open| self.identity.is_same_file(&open))
    }

    /// This file, compared as far as `pin` says. Files have no ETag: [`PinBy::Etag`] compares the
    /// times, as [`PinBy::Auto`] does.
    pub(super) fn pinned_by(self, pin: PinBy) -> Self {
        match pin {
            PinBy::Auto | PinBy::Etag => self,
            PinBy::Length | PinBy::None => Self { identity: self.identity.timeless(), ..self },
        }
    }

    /// This file, whose bytes are compared with the checksum that others left for it (`local_sums`). A
    /// file without one is not verified if `allows_unverified` is set.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a file without a checksum; those of
    /// [`local_sums::find`].
    pub(super) fn verified(self, allows_unverified: bool) -> Result<Self> {
        match local_sums::find(&self.path)? {
            Some(expected) => self.verified_by(expected),
            None if allows_unverified => Ok(self),
            None => {
                let location = &self.location;
                let sentence = format!(
                    "{location} is a file without a checksum: there is no {location}.sha256, no line \
                     in a SHA256SUMS beside it, and no blob of the Hub's cache that is named by its \
                     SHA-256; load it without {}, or write a manifest with ringload sum and load \
                     with {}",
                    option("verify").on(),
                    option("manifest")
                );
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
        }
    }

    /// This file, whose bytes are compared with `expected`.
    ///
    /// # Errors
    /// Those of [`ChecksumVerifier::new`].
    fn verified_by(self, expected: ExpectedSum) -> Result<Self> {
        let (location, len_bytes) = (self.location.clone(), self.identity.len_bytes);
        let verifier = Arc::new(ChecksumVerifier::new(location, len_bytes, expected)?);
        Ok(Self { verifier: Some(verifier), ..self })
    }

    /// The shared descriptors; opens them if no reader has them open.
    fn opened(&self) -> Result<Arc<OpenFile>> {
        let mut open = self.open.lock();
        if let Some(file) = open.upgrade() {
            return Ok(file);
        }
        let file = Arc::new(OpenFile::open(&self.path, self.identity)?);
        *open = Arc::downgrade(&file);
        Ok(file)
    }
}

impl Source for FileSource {
    fn version(&self) -> String {
        self.identity.version()
    }

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

    fn range_bytes(&self, _memory_bytes: u64, _left_bytes: u64) -> Option<u64> {
        let open = self.open.lock().upgrade()?;
        open.is_cold.load(Ordering::Relaxed).then_some(COLD_READ_BYTES)
    }

    fn cached_bytes(&self) -> Option<u64> {
        resident_bytes(&self.opened().ok()?.buffered, 0, self.identity.len_bytes).ok()
    }

    fn read_exact_at(
        &self,
        into: &mut [u8],
        offset: u64,
        _cancellation: &Cancellation,
    ) -> io::Result<()> {
        let file = self.opened().map_err(io::Error::other)?;
        file.buffered.read_exact_at(into, offset)?;
        match &self.verifier {
            Some(verifier) => verifier.add(offset, into).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    fn verifier(&self) -> Option<Arc<ChecksumVerifier>> {
        self.verifier.as_ref().map(|verifier| verifier.for_load())
    }

    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>> {
        Ok(Box::new(FileReader::new(self.opened()?, self.block_bytes, access)))
    }

    fn begins_cached(&self) -> bool {
        let len = self.identity.len_bytes.min(BEGINNING_BYTES);
        let resident = |open: Arc<OpenFile>| resident_bytes(&open.buffered, 0, len).ok();
        self.opened().ok().and_then(resident) == Some(len)
    }

    fn map(&self) -> Result<Mapping> {
        let open = self.opened()?;
        Mapping::of_file(&open.buffered, self.identity.len_bytes as usize)
            .map_err(|e| Error::from_io(format_args!("map {}", self.path.display()), e))
    }

    fn map_private(&self) -> Result<MappedFile> {
        MappedFile::new(self.opened()?)
    }

    fn is_immutable(&self) -> bool {
        local_sums::of_hub_cache(&self.path).is_some()
    }

    /// Pages of a mounted server come in one request after the other, and reads side by side.
    fn maps_fast(&self) -> bool {
        let Ok(open) = self.opened() else { return false };
        let is_cached =
            || self.cached_bytes().is_some_and(|bytes| bytes == self.identity.len_bytes);
        (!open.is_fuse() && open.direct().is_ok()) || is_cached()
    }

    fn keep_open(&self) -> Result<Option<Arc<dyn Any + Send + Sync>>> {
        Ok(Some(self.opened()?))
    }

    fn direct_file(&self) -> Result<DirectFile> {
        DirectFile::open(self.opened()?)
    }

    fn check_unchanged(&self) -> Result<()> {
        self.identity.check(&self.opened()?.buffered, &self.path)
    }
}

/// The alignment of direct reads of `file`: at least a page, as slots are aligned to pages.
fn block_bytes(file: &File) -> usize {
    let reported = sys::direct_alignment(file)
        .map_or(0, |alignment| alignment.memory_bytes.max(alignment.offset_bytes));
    (reported as usize).next_power_of_two().max(PAGE_BYTES)
}
