//! Files of a checkpoint whose pages stay in the page cache.
//!
//! The kernel takes back pages of files that nobody has used for a while. Locking a page (mlock(2))
//! keeps it until it is unlocked, for all processes that read or map the file:
//!
//! ```text
//! HeldCheckpoint::new   --> maps each file; of an object, the one in the local file cache
//! HeldCheckpoint::hold  --> reads a range into the page cache, and locks it
//! drop                  --> unlocks: the kernel may take the pages back
//! ```
//!
//! The mapping is read-only. A lock of one that is private and writable would copy its pages.

use crate::checkpoint::{Checkpoint, Shard};
use crate::error::{Error, ErrorKind, Result, Size};
use crate::location::Location;
use crate::ring::Mapping;
use crate::sys;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A checkpoint whose files are mapped, so that their pages can be locked.
#[derive(Debug)]
pub struct HeldCheckpoint {
    files: Vec<HeldFile>,
    /// Keeps entries of the local file cache from being evicted.
    checkpoint: Arc<Checkpoint>,
}

/// One file of the checkpoint.
#[derive(Debug)]
pub struct HeldFile {
    location: Location,
    path: PathBuf,
    mapping: Mapping,
}

impl HeldCheckpoint {
    /// Maps the files of `checkpoint`. Nothing is read yet.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for an object that is not complete in a local file
    /// cache; the errors of opening a file.
    pub fn new(checkpoint: Arc<Checkpoint>) -> Result<Self> {
        let files = checkpoint.shards().iter().map(HeldFile::new).collect::<Result<_>>()?;
        Ok(Self { files, checkpoint })
    }

    /// The files, in the order of the checkpoint's shards.
    pub fn files(&self) -> &[HeldFile] {
        &self.files
    }

    /// Reads `range` of the file `index` into the page cache and locks it there. Several threads may
    /// hold ranges at the same time.
    ///
    /// # Errors
    /// [`OutOfMemory`](ErrorKind::OutOfMemory) where a limit does not permit to lock as much;
    /// [`Changed`](ErrorKind::Changed) if the file was replaced or written to since it was opened;
    /// [`Io`](ErrorKind::Io) if it cannot be read.
    ///
    /// # Panics
    /// When the range goes beyond the end of the file.
    pub fn hold(&self, index: usize, range: Range<u64>) -> Result<()> {
        let file = &self.files[index];
        file.mapping.lock(range.start as usize..range.end as usize).map_err(|cause| {
            match self.checkpoint.shards()[index].source().check_unchanged() {
                Err(changed) => changed,
                Ok(()) => file.refusal(range, cause),
            }
        })
    }
}

impl HeldFile {
    fn new(shard: &Shard) -> Result<Self> {
        let (source, location) = (shard.source(), shard.location().clone());
        let (path, mapping) = match &location {
            Location::File(path) => (path.clone(), source.map()?),
            _ => {
                let path = source.cached_file().filter(|path| path.exists());
                let path = path.ok_or_else(|| not_cached(&location))?;
                let file = sys::open_regular(&path, "cached object")?;
                let mapping = Mapping::of_file(&file, shard.len_bytes() as usize)
                    .map_err(|e| Error::from_io(format_args!("map {}", path.display()), e))?;
                (path, mapping)
            }
        };
        Ok(Self { location, path, mapping })
    }

    /// What was opened.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The local file.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The length of the file in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.mapping.len() as u64
    }

    fn refusal(&self, range: Range<u64>, cause: io::Error) -> Error {
        let path = self.path.display();
        let bytes = Size(range.end - range.start);
        match cause.raw_os_error() {
            Some(libc::ENOMEM | libc::EAGAIN | libc::EPERM) => {
                let sentence = format!(
                    "cannot lock {bytes} of {path} in memory; raise the limit of locked memory \
                     (ulimit -l, LimitMEMLOCK=, docker --ulimit memlock=-1), or set a smaller budget"
                );
                Error::new(ErrorKind::OutOfMemory, sentence).with_source(cause)
            }
            _ => Error::from_io(format_args!("lock {bytes} of {path} in memory"), cause),
        }
    }
}

fn not_cached(location: &Location) -> Error {
    let sentence = format!(
        "{location} is not complete in a local file cache; set a cache directory and fetch it first"
    );
    Error::new(ErrorKind::Unsupported, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Loader;
    use crate::test_files::file_at;

    /// The bytes of `path` that this process has locked, as /proc/self/smaps counts them.
    fn locked_bytes(path: &std::path::Path) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let locked = lines.filter_map(|line| line.strip_prefix("Locked:")).next().unwrap();
        locked.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    #[test]
    fn the_pages_of_the_file_are_locked_and_not_copies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.safetensors");
        std::fs::write(&path, file_at("t", &[40_000, 60_000], 0)).unwrap();
        let checkpoint = Arc::new(Loader::new().open(path.as_path()).unwrap());
        let held = HeldCheckpoint::new(checkpoint).unwrap();
        let len_bytes = held.files()[0].len_bytes();
        held.hold(0, 0..4096).unwrap();
        assert_eq!(locked_bytes(&path), 4096);
        held.hold(0, 4096..len_bytes).unwrap();
        assert_eq!(locked_bytes(&path), len_bytes.next_multiple_of(4096));
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_file = maps.split(path.to_str().unwrap()).nth(1).unwrap();
        assert!(of_file.contains("Anonymous:             0 kB"), "{of_file}");
    }

    /// A file that shrank has fewer pages than its mapping, which the kernel reports as if a limit did
    /// not permit the lock.
    #[test]
    fn a_file_that_shrank_is_not_reported_as_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.safetensors");
        std::fs::write(&path, file_at("t", &[100_000], 0)).unwrap();
        let checkpoint = Arc::new(Loader::new().open(path.as_path()).unwrap());
        let held = HeldCheckpoint::new(checkpoint).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let refused = held.hold(0, 0..held.files()[0].len_bytes()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Changed, "{refused}");
    }
}
