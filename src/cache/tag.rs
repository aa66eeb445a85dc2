//! The tag of a cache, which says that a directory was empty when it became a cache, so that files may
//! be deleted in it.
//!
//! A full disk, a limit of the size of files or a kill can leave the beginning of the tag, mostly an
//! empty file. Such a tag counts if the lock file, which is made before it, is there and all names in
//! the directory are those of a cache. The next process that opens the cache completes the tag. All
//! processes write the same bytes at the same offset, so that they may do that at once. A whole line
//! with the signature is the tag of another program.

use super::locks::LOCK;
use super::root::{CacheRoot, TAG_NAME};
use crate::error::Error;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Tells backup programs that the content can be downloaded again (<https://bford.info/cachedir/>), and
/// ringload that the directory is a cache, in which it may delete.
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                   # This is the cache of ringload. `ringload cache` lists, checks and empties it.\n";

/// The length of the signature, with which the tag of any program begins.
const SIGNATURE_BYTES: usize = 43;

/// The directory of the listings.
pub(super) const LISTINGS: &str = "listings";

/// What the file of the tag contains.
#[derive(Debug, PartialEq, Eq)]
enum TagState {
    Complete,
    /// The beginning of the tag, in a directory with nothing but files of a cache.
    Unfinished,
    /// Something else, or there is no such file.
    Absent,
}

impl CacheRoot {
    /// Whether the directory is a cache: it has the tag or the directory of an object, or it is empty
    /// and becomes a cache with the first object.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn is_cache(&self) -> io::Result<bool> {
        let names = self.names(self.path())?;
        let has_object = names.iter().any(|name| is_hash(bytes(name)));
        Ok(has_object || is_blank(&names) || self.check_tag().is_ok())
    }

    /// Marks an empty directory as a cache, or completes its tag. Does nothing to another directory.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn tag(&self) -> io::Result<()> {
        let wants_tag = match self.tag_state() {
            TagState::Complete => false,
            TagState::Unfinished => true,
            TagState::Absent => is_blank(&self.names(self.path())?),
        };
        match wants_tag {
            true => self.file_or_new(&self.path().join(TAG_NAME))?.write_all_at(TAG.as_bytes(), 0),
            false => Ok(()),
        }
    }

    /// Checks that the directory is marked as a cache.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the tag is missing.
    pub fn check_tag(&self) -> io::Result<()> {
        match self.tag_state() {
            TagState::Complete | TagState::Unfinished => Ok(()),
            TagState::Absent => Err(io::Error::other(Error::invalid_input(format!(
                "{} was not empty when it became a cache, so nothing in it is deleted, and its \
                 size has no limit; use an empty directory",
                self.path().display()
            )))),
        }
    }

    fn tag_state(&self) -> TagState {
        match self.read(&self.path().join(TAG_NAME), TAG.len() + 1) {
            Ok((tag, _)) if tag == TAG.as_bytes() => TagState::Complete,
            Ok((tag, _)) if TAG.as_bytes()[..SIGNATURE_BYTES - 1].starts_with(&tag) => {
                let names = self.names(self.path()).unwrap_or_default();
                let has_lock = names.iter().any(|name| name == Path::new(LOCK));
                match has_lock && names.iter().all(|name| is_of_cache(name)) {
                    true => TagState::Unfinished,
                    false => TagState::Absent,
                }
            }
            _ => TagState::Absent,
        }
    }
}

/// Whether a directory with these names is as good as empty.
fn is_blank(names: &[PathBuf]) -> bool {
    names.iter().all(|name| [LOCK.as_bytes(), b"lost+found"].contains(&bytes(name)))
}

/// Whether a cache in an empty directory may have this name in it.
fn is_of_cache(name: &Path) -> bool {
    let name = bytes(name);
    let known = [LOCK, LISTINGS, TAG_NAME, "lost+found"];
    let is_temporary = |name: &[u8]| name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit);
    known.iter().any(|known| known.as_bytes() == name)
        || is_hash(name)
        || name.strip_prefix(b".").is_some_and(is_temporary)
}

/// Whether the directory of an object, or the file of a listing, has this name.
pub(super) fn is_hash(name: &[u8]) -> bool {
    name.len() == 64 && name.iter().all(u8::is_ascii_hexdigit)
}

fn bytes(name: &Path) -> &[u8] {
    name.as_os_str().as_encoded_bytes()
}
