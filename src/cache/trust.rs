//! Whose files in a cache are trusted, and who may read new ones.
//!
//! Whoever may write to an entry decides which bytes a load delivers: the checksums of its pages are
//! beside them. So a cache belongs to one user, and its entries may be read by that user alone, unless
//! the cache is declared to be shared.

use crate::error::option;
use crate::options::CacheAccess;
use nix::unistd::geteuid;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// The rules of one cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trust {
    access: CacheAccess,
    /// The permissions of the cache's directory; those of new entries in a shared cache.
    mode: u32,
}

impl Trust {
    /// The rules of a cache with this `access`, before its directory is known.
    pub fn new(access: CacheAccess) -> Self {
        Self { access, mode: 0o777 }
    }

    /// The rules of the cache whose directory has this metadata.
    ///
    /// # Errors
    /// The reason why it is not trusted.
    pub fn of_directory(self, directory: &Metadata) -> Result<Self, String> {
        if self.access != CacheAccess::Shared {
            check_owner(directory)?;
            if directory.mode() & 0o022 != 0 {
                return Err(writable_by_others());
            }
        }
        Ok(Self { mode: directory.mode() & 0o777, ..self })
    }

    /// Checks that a file may be used; with `writable`, that it may be written to.
    ///
    /// # Errors
    /// The reason why it may not.
    pub fn check_file(&self, file: &Metadata, writable: bool) -> Result<(), String> {
        if !file.is_file() {
            return Err(NOT_REGULAR.to_owned());
        }
        if writable && file.nlink() != 1 {
            return Err("it has another name elsewhere; remove it here".to_owned());
        }
        match self.access {
            CacheAccess::Shared => Ok(()),
            CacheAccess::Download => check_owner(file),
            CacheAccess::Private if file.mode() & 0o022 != 0 => Err(writable_by_others()),
            CacheAccess::Private => check_owner(file),
        }
    }

    /// Whether the directory may be reached by a symbolic link: its path is the user's own, unless
    /// it is inside the target of a download.
    pub fn follows_links(&self) -> bool {
        !self.is_of_download()
    }

    /// Whether the cache is the part of a download that has arrived.
    pub fn is_of_download(&self) -> bool {
        self.access == CacheAccess::Download
    }

    /// The permissions of new directories.
    pub fn directory_mode(&self) -> u32 {
        if self.access == CacheAccess::Shared { self.mode } else { 0o700 }
    }

    /// The permissions of new files.
    pub fn file_mode(&self) -> u32 {
        match self.access {
            CacheAccess::Private => 0o600,
            CacheAccess::Download => 0o666,
            CacheAccess::Shared => self.mode & 0o666,
        }
    }

    /// Whether new files and directories have exactly these permissions, whatever the umask is.
    pub fn sets_modes(&self) -> bool {
        self.access == CacheAccess::Shared
    }
}

fn writable_by_others() -> String {
    format!(
        "other users may write to it; change that with chmod go-w, or give {} if you trust everyone \
         who may write to it",
        option("cache_shared").on()
    )
}

/// The reason against a FIFO, a device, a socket or a directory.
pub(super) const NOT_REGULAR: &str = "it is not a regular file; remove it";

/// The reason against a symbolic link.
pub(super) const LINK: &str = "it is a symbolic link, which is not followed; remove it";

/// Checks that a file belongs to this user, or to root, who can do anything anyway.
fn check_owner(metadata: &Metadata) -> Result<(), String> {
    let (owner, user) = (metadata.uid(), geteuid().as_raw());
    match owner == user || owner == 0 {
        true => Ok(()),
        false => Err(format!(
            "it belongs to user {owner}, and this process to user {user}; use a directory of your \
             own, or {} if you trust everyone who may write to it",
            option("cache_shared").on()
        )),
    }
}
