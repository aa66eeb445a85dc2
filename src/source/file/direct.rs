//! A file as a device needs it that reads it by itself.

use super::OpenFile;
use super::identity::Identity;
use crate::source::resident_bytes;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A file that was opened for direct reads, by a descriptor that nobody else has; and as long as
/// this lives, the source keeps it open for its own.
#[derive(Debug)]
pub struct DirectFile {
    pub(super) direct: Arc<File>,
    pub(super) open: Arc<OpenFile>,
    pub(super) identity: Identity,
}

impl DirectFile {
    /// The descriptor.
    pub fn descriptor(&self) -> &Arc<File> {
        &self.direct
    }

    /// The number of the file system that it is on.
    pub fn file_system(&self) -> u64 {
        self.identity.device
    }

    /// How many of its bytes the page cache holds.
    ///
    /// # Errors
    /// As [`resident_bytes`].
    pub fn resident_bytes(&self) -> io::Result<u64> {
        resident_bytes(&self.open.buffered, 0, self.identity.len_bytes)
    }
}
