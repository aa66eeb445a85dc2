//! The identity of a file, by which changes are detected.
//!
//! A program that writes to a file can put the modification time back (`rsync --inplace -t` does), but
//! not the time of the last change of the inode (ctime), which no system call sets. That time also
//! changes with the file's name, owner and permissions. Only a change together with the number of
//! names is taken for one of the name alone: a finished file was renamed over this one, or a link to
//! it was made or removed. The kernel's change cookie would tell the cases apart, and is not given to
//! programs (`statx(2)` masks it, as of Linux 6.18).

use crate::error::{Error, ErrorKind, Result, Size};
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Distinguishes states of a file, as far as the file system can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) struct FileIdentity {
    pub device: u64,
    inode: u64,
    pub len_bytes: u64,
    /// `None` for a file whose times are not compared: one that is still being written, whose readers
    /// check its bytes themselves, or one that is pinned by its length alone.
    times: Option<FileTimes>,
}

/// When a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileTimes {
    /// Seconds and nanoseconds of the last modification of the bytes.
    modified: (i64, i64),
    /// Those of the last change of the inode, of any kind.
    changed: (i64, i64),
    /// The number of names.
    links: u64,
}

impl FileTimes {
    /// Whether a file that now has the times `now` still has the same bytes.
    fn have_same_bytes(&self, now: &Self) -> bool {
        self.modified == now.modified && (self.changed == now.changed || self.links != now.links)
    }
}

impl FileIdentity {
    /// The identity of an open file.
    ///
    /// # Errors
    /// The errors of `fstat(2)`.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len_bytes: metadata.len(),
            times: Some(FileTimes {
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
                links: metadata.nlink(),
            }),
        })
    }

    /// The length and the modification time, which machines that mount the same files agree on.
    pub fn version(&self) -> String {
        match self.times {
            Some(FileTimes { modified: (seconds, nanoseconds), .. }) => {
                format!("{} bytes of {seconds}.{nanoseconds:09}", self.len_bytes)
            }
            None => format!("{} bytes", self.len_bytes),
        }
    }

    /// This identity without the times.
    pub fn timeless(self) -> Self {
        Self { times: None, ..self }
    }

    /// Whether both identify the same file, in whatever state.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether `now`, taken later, identifies the same state of the same file.
    pub fn is_still(&self, now: &Self) -> bool {
        let same_times = match (&self.times, &now.times) {
            (Some(was), Some(is)) => was.have_same_bytes(is),
            _ => true,
        };
        same_times && self.timeless() == now.timeless()
    }

    fn has_modification_time_of(&self, now: &Self) -> bool {
        self.times.zip(now.times).is_some_and(|(was, is)| was.modified == is.modified)
    }

    /// Checks that `file`, opened from `path`, is in the same state.
    ///
    /// # Errors
    /// [`Changed`](ErrorKind::Changed), saying what changed.
    pub fn check(&self, file: &File, path: &Path) -> Result<()> {
        let now = Self::of(file)
            .map_err(|e| Error::from_io(format_args!("stat {}", path.display()), e))?;
        if self.is_still(&now) {
            return Ok(());
        }
        let (was, is) = (self.len_bytes, now.len_bytes);
        let what = match is.cmp(&was) {
            Ordering::Less => format!("it shrank from {} to {}", Size(was), Size(is)),
            Ordering::Greater => format!("it grew from {} to {}", Size(was), Size(is)),
            Ordering::Equal if now.inode != self.inode => "it was replaced".to_owned(),
            Ordering::Equal if self.has_modification_time_of(&now) => "its ctime changed and its \
                modification time did not, so it was written to and the time put back, or its name, \
                owner or permissions changed"
                .to_owned(),
            Ordering::Equal => "it was written to".to_owned(),
        };
        let sentence = format!(
            "{} changed while it was being loaded: {what}; load it again when nothing writes to it \
             (replace checkpoints by renaming a finished file)",
            path.display()
        );
        Err(Error::new(ErrorKind::Changed, sentence))
    }
}
