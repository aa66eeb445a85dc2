//! Which file it is, and whether it is still that.

use crate::error::{Error, ErrorKind, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells one state of a file from another, as far as the file system can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    inode: u64,
    pub(super) len_bytes: u64,
    /// Seconds and nanoseconds of the last modification; `None` of a file that is still written to,
    /// by those who know what they do.
    modified: Option<(i64, i64)>,
}

impl Identity {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len_bytes: metadata.len(),
            modified: Some((metadata.mtime(), metadata.mtime_nsec())),
        })
    }

    /// The same, whenever it is modified.
    pub(super) fn growing(self) -> Self {
        Self { modified: None, ..self }
    }

    /// Whether `now`, looked at later, is still it.
    pub(super) fn is_still(&self, now: &Self) -> bool {
        let modified = self.modified.and(now.modified);
        *self == Self { modified, ..*now }
    }

    /// Fails, saying what changed, unless `file` is still the same.
    pub(super) fn check(&self, file: &File, path: &Path) -> Result<()> {
        let now = Self::of(file)
            .map_err(|e| Error::from_io(format_args!("look at {}", path.display()), e))?;
        if self.is_still(&now) {
            return Ok(());
        }
        let (was, is) = (self.len_bytes, now.len_bytes);
        let what = match is.cmp(&was) {
            std::cmp::Ordering::Less => format!("it shrank from {was} to {is} bytes"),
            std::cmp::Ordering::Greater => format!("it grew from {was} to {is} bytes"),
            std::cmp::Ordering::Equal if now.inode != self.inode => "it was replaced".to_owned(),
            std::cmp::Ordering::Equal => "it was written to".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Changed,
            format!(
                "{} changed while it was being loaded: {what}; load it again when nothing writes \
                 to it (replace checkpoints by renaming a finished file)",
                path.display()
            ),
        ))
    }
}
