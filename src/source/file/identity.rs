//! The identity of a file, by which changes are detected.

use crate::error::{Error, ErrorKind, Result};
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
    /// Seconds and nanoseconds of the last modification; `None` for a file that is still being
    /// written, whose readers check its bytes themselves.
    modified: Option<(i64, i64)>,
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
            modified: Some((metadata.mtime(), metadata.mtime_nsec())),
        })
    }

    /// This identity without the modification time, for a file that is still being written.
    pub fn growing(self) -> Self {
        Self { modified: None, ..self }
    }

    /// Whether `now`, taken later, identifies the same state of the same file.
    pub fn is_still(&self, now: &Self) -> bool {
        let modified = self.modified.and(now.modified);
        *self == Self { modified, ..*now }
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
            Ordering::Less => format!("it shrank from {was} to {is} bytes"),
            Ordering::Greater => format!("it grew from {was} to {is} bytes"),
            Ordering::Equal if now.inode != self.inode => "it was replaced".to_owned(),
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
