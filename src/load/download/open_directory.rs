//! A directory that is open, and what is below it, reached without following a symbolic link.
//!
//! Others may be permitted to write to the target of a download. Whatever they put in the place of a
//! directory meanwhile, files are created and replaced only in the directories that were opened.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const NEW_DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o777);
const NEW_FILE_MODE: Mode = Mode::from_bits_truncate(0o666);

#[derive(Debug)]
pub struct OpenDirectory(OwnedFd);

impl OpenDirectory {
    /// Opens a directory that the user names. Links on the way to it are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// The directory `path` below this one; with `create`, missing directories are created.
    pub fn directory(&self, path: &Path, create: bool) -> io::Result<Self> {
        let mut at = openat(&self.0, ".", DIRECTORY, Mode::empty())?;
        for component in path.components() {
            let Component::Normal(name) = component else { return Err(Errno::EXDEV.into()) };
            if create {
                match mkdirat(&at, name, NEW_DIRECTORY_MODE) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            at = openat(&at, name, DIRECTORY, Mode::empty())?;
        }
        Ok(Self(at))
    }

    /// Checks that the directory belongs to this user or to root.
    pub fn check_owner(self) -> io::Result<Self> {
        let directory = File::from(self.0);
        let owner = directory.metadata()?.uid();
        match owner == 0 || owner == geteuid().as_raw() {
            true => Ok(Self(directory.into())),
            false => Err(Errno::EACCES.into()),
        }
    }

    /// Creates the file `name`, which must not exist.
    pub fn create_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, NEW_FILE_MODE)?.into())
    }

    /// Opens the file `name`, which [`create_file`](Self::create_file) has created, to write to it.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Removes the file `name`, or the link itself.
    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Makes the file `from`, which may be in a directory below this one, the file `to` of the
    /// directory `into`, and writes the name to the disk.
    pub fn place(&self, from: &Path, into: &Self, to: &Path) -> io::Result<()> {
        let (parent, name) = from.parent().zip(from.file_name()).ok_or(Errno::EINVAL)?;
        renameat(&self.directory(parent, false)?.0, name, &into.0, to)?;
        nix::unistd::fsync(&into.0)?;
        Ok(())
    }

    /// The names in the directory that are Unicode.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let directory = openat(&self.0, ".", DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(directory)? {
            let entry = entry?;
            names.extend(std::str::from_utf8(entry.file_name().to_bytes()).map(str::to_owned));
        }
        Ok(names)
    }
}

/// `path` without the directory `base`.
pub fn relative(path: &Path, base: &Path) -> io::Result<PathBuf> {
    Ok(path.strip_prefix(base).map_err(|_| Errno::EXDEV)?.to_owned())
}
