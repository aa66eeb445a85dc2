//! The directory of a cache, through which all of its files are reached.
//!
//! The directory is opened once. Every path below it is resolved from that descriptor, follows no
//! symbolic link, and does not leave the directory (`openat2` with `RESOLVE_BENEATH`, or else one
//! directory after the other with `O_NOFOLLOW`). Files are opened with `O_NONBLOCK`, so that a FIFO
//! does not block, and used only if they are regular files of trusted owners ([`Trust`]). A file that
//! is written to has no second name, which could be that of another program's file.

use super::file_status::FileStatus;
use super::trust::{LINK, NOT_REGULAR, Trust};
use crate::error::{Error, ErrorKind};
use crate::options::CacheAccess;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// The name of the file that marks a directory as a cache.
pub(super) const TAG_NAME: &str = "CACHEDIR.TAG";

/// Flags of every open.
const ALWAYS: OFlag = OFlag::O_CLOEXEC.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK);

/// The open directory of a cache. Paths that are passed to its methods are those of files below it.
#[derive(Debug)]
pub(super) struct CacheRoot {
    path: PathBuf,
    /// `None` if the directory is not used.
    directory: Option<OwnedFd>,
    trust: Trust,
    lacks_openat2: AtomicBool,
}

impl CacheRoot {
    /// Opens the cache in `path`. A missing directory is created if `create` is set. Symbolic links
    /// that lead to the directory are followed, as its path is the user's own.
    ///
    /// # Errors
    /// The errors of the file system; [`PermissionDenied`](io::ErrorKind::PermissionDenied), saying
    /// why, for a directory that is not to be trusted.
    pub fn open(path: &Path, trust: Trust, create: bool) -> io::Result<Self> {
        if create && !path.is_dir() {
            DirBuilder::new().recursive(true).mode(trust.directory_mode()).create(path).map_err(
                |error| match error.kind() {
                    io::ErrorKind::AlreadyExists => Errno::ENOTDIR.into(),
                    _ => error,
                },
            )?;
        }
        let no_link = if trust.follows_links() { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | no_link;
        let directory = File::from(nix::fcntl::open(path, flags, Mode::empty())?);
        let trust =
            trust.of_directory(&directory.metadata()?).map_err(|why| refused(path, &why))?;
        let (path, directory) = (path.to_owned(), Some(OwnedFd::from(directory)));
        Ok(Self { path, directory, trust, lacks_openat2: AtomicBool::new(false) })
    }

    /// The cache in `path`, which cannot be used: nothing can be opened in it.
    pub fn unusable(path: &Path) -> Self {
        let (path, trust) = (path.to_owned(), Trust::new(CacheAccess::Private));
        Self { path, directory: None, trust, lacks_openat2: AtomicBool::new(false) }
    }

    /// Whether the cache is the part of a download that has arrived.
    pub fn is_of_download(&self) -> bool {
        self.trust.is_of_download()
    }

    fn top(&self) -> io::Result<&OwnedFd> {
        Ok(self.directory.as_ref().ok_or(Errno::EACCES)?)
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file to read it; with `writable`, to write to it too.
    ///
    /// # Errors
    /// The errors of the file system; [`PermissionDenied`](io::ErrorKind::PermissionDenied) for
    /// anything but a regular file that is to be trusted.
    pub fn file(&self, path: &Path, writable: bool) -> io::Result<File> {
        let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let file = match self.open_below(path, access, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(error) => {
                return Err(match error.raw_os_error() {
                    Some(libc::EISDIR | libc::ENXIO) => refused(path, NOT_REGULAR),
                    Some(libc::ELOOP) => refused(path, LINK),
                    _ => error,
                });
            }
        };
        let checked = self.trust.check_file(&file.metadata()?, writable);
        checked.map_err(|why| refused(path, &why))?;
        Ok(file)
    }

    /// Creates a file that does not exist.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn create_file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let mode = Mode::from_bits_truncate(self.trust.file_mode());
        let file = File::from(self.open_below(path, flags, mode)?);
        if self.trust.sets_modes() {
            fchmod(&file, mode)?;
        }
        Ok(file)
    }

    /// Opens a file to read and write it, and creates it if it does not exist.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn file_or_new(&self, path: &Path) -> io::Result<File> {
        match self.create_file(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.file(path, true),
            created => created,
        }
    }

    /// Creates a file of this content; replaces one that exists.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.create_file(path)?.write_all(content)
    }

    /// The first `most` bytes of a file, and when it was modified.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn read(&self, path: &Path, most: usize) -> io::Result<(Vec<u8>, SystemTime)> {
        let file = self.file(path, false)?;
        let modified = file.metadata()?.modified()?;
        let mut content = Vec::new();
        file.take(most as u64).read_to_end(&mut content)?;
        Ok((content, modified))
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn create_directory(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let mode = Mode::from_bits_truncate(self.trust.directory_mode());
        mkdirat(&parent, name, mode)?;
        if self.trust.sets_modes() {
            fchmod(openat(&parent, name, ALWAYS | OFlag::O_DIRECTORY, Mode::empty())?, mode)?;
        }
        Ok(())
    }

    /// As [`create_directory`](Self::create_directory), unless there is one.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn create_directory_if_missing(&self, path: &Path) -> io::Result<()> {
        match self.create_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.directory(path).map(drop)
            }
            created => created,
        }
    }

    /// Gives a file or directory another name.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from, old), (to, new)) = (self.parent(from)?, self.parent(to)?);
        Ok(renameat(from, old, to, new)?)
    }

    /// Writes the names in a directory to the disk.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::from(self.directory(path)?).sync_all()
    }

    /// The status of a file or directory, or of a link itself; `None` if there is none.
    pub fn status(&self, path: &Path) -> Option<FileStatus> {
        let (parent, name) = self.parent(path).ok()?;
        fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok().map(FileStatus::from)
    }

    /// Whether there is a file of this path, of any kind but a directory.
    pub fn has_file(&self, path: &Path) -> bool {
        self.status(path).is_some_and(|status| !status.is_directory)
    }

    /// The paths of the directories in a directory; none where it cannot be read.
    pub fn subdirectories(&self, path: &Path) -> Vec<PathBuf> {
        let names = self.names(path).unwrap_or_default().into_iter().map(|name| path.join(name));
        names.filter(|path| self.status(path).is_some_and(|found| found.is_directory)).collect()
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn names(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        use std::os::unix::ffi::OsStrExt;
        let mut names = Vec::new();
        for entry in Dir::from_fd(self.directory(path)?)? {
            let entry = entry?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(PathBuf::from(name));
            }
        }
        Ok(names)
    }

    /// Removes a directory with those of its files that have these `names`. Anything else in it stays,
    /// and so does then the directory.
    ///
    /// # Errors
    /// The errors of the file system; [`PermissionDenied`](io::ErrorKind::PermissionDenied) where the
    /// cache has no tag.
    pub fn remove_directory(&self, path: &Path, names: &[&str]) -> io::Result<()> {
        self.check_tag()?;
        self.remove_new_directory(path, names)
    }

    /// As [`remove_directory`](Self::remove_directory), for a directory that this process has just
    /// created. The cache needs no tag.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn remove_new_directory(&self, path: &Path, names: &[&str]) -> io::Result<()> {
        let directory = self.directory(path)?;
        for name in names {
            match unlinkat(&directory, *name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (parent, name) = self.parent(path)?;
        Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
    }

    /// Removes the files that every cache has and then the directory itself, if it is empty.
    ///
    /// # Errors
    /// As [`remove_directory`](Self::remove_directory).
    pub fn remove(&self, names: &[&str]) -> io::Result<()> {
        self.check_tag()?;
        for name in names.iter().chain([&TAG_NAME]) {
            let _ = unlinkat(self.top()?, *name, UnlinkatFlags::NoRemoveDir);
        }
        std::fs::remove_dir(&self.path)
    }

    /// The open directory `path`.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        if path == self.path {
            // Not a duplicate, which would share the position of a reader.
            return Ok(openat(self.top()?, ".", ALWAYS | OFlag::O_DIRECTORY, Mode::empty())?);
        }
        self.open_below(path, OFlag::O_DIRECTORY, Mode::empty())
    }

    /// The directory that `path` is in, and its name there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a Path)> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::EINVAL)?;
        Ok((self.directory(parent)?, Path::new(name)))
    }

    /// Opens `path`, which is below the directory, without following a link.
    fn open_below(&self, path: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let relative = path.strip_prefix(&self.path).map_err(|_| Errno::EXDEV)?;
        let flags = flags | ALWAYS;
        if !self.lacks_openat2.load(Ordering::Relaxed) {
            let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            let how = OpenHow::new().flags(flags).mode(mode).resolve(resolve);
            match openat2(self.top()?, relative, how) {
                // The filters of some containers refuse the call.
                Err(Errno::ENOSYS | Errno::EPERM) => {
                    self.lacks_openat2.store(true, Ordering::Relaxed);
                }
                opened => return Ok(opened?),
            }
        }
        self.open_step_by_step(relative, flags, mode)
    }

    fn open_step_by_step(&self, relative: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let mut at = self.top()?.try_clone()?;
        let mut components = relative.components().peekable();
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else { return Err(Errno::EXDEV.into()) };
            let is_last = components.peek().is_none();
            let flags = if is_last { flags } else { ALWAYS | OFlag::O_DIRECTORY };
            at = openat(&at, name, flags, mode)?;
        }
        Ok(at)
    }
}

/// The error for a directory or file that is not to be used. `why` ends with the remedy.
fn refused(path: &Path, why: &str) -> io::Error {
    let sentence = format!("{} is not used for the cache: {why}", path.display());
    io::Error::other(Error::new(ErrorKind::PermissionDenied, sentence))
}

/// Whether both are the same file.
pub(super) fn is_same_file(a: &File, b: &File) -> bool {
    let identity = |file: &File| file.metadata().map(|file| (file.dev(), file.ino())).ok();
    identity(a).is_some_and(|a| Some(a) == identity(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Kernels before 5.6 and some containers have no `openat2`. The same must hold without it.
    #[test]
    fn no_link_is_followed_with_openat2_or_without() {
        for lacks_openat2 in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join("cache").join(name);
            let trust = Trust::new(CacheAccess::Private);
            let root = CacheRoot::open(&at(""), trust, true).unwrap();
            root.lacks_openat2.store(lacks_openat2, Ordering::Relaxed);
            std::fs::create_dir(directory.path().join("elsewhere")).unwrap();
            std::fs::write(directory.path().join("elsewhere/file"), "x").unwrap();
            root.create_directory(&at("inside")).unwrap();
            root.write(&at("inside/file"), b"y").unwrap();
            assert_eq!(root.read(&at("inside/file"), 9).unwrap().0, b"y");
            symlink(directory.path().join("elsewhere"), at("link")).unwrap();
            symlink(at("inside/file"), at("inside/link")).unwrap();
            for path in ["link/file", "inside/link", "../elsewhere/file", "inside/../link/file"] {
                assert!(root.file(&at(path), false).is_err(), "{path} {lacks_openat2}");
            }
            for path in ["link/new", "../elsewhere/new"] {
                assert!(root.create_file(&at(path)).is_err(), "{path} {lacks_openat2}");
                assert!(root.create_directory(&at(path)).is_err(), "{path} {lacks_openat2}");
                assert!(root.rename(&at("inside/file"), &at(path)).is_err(), "{path}");
            }
            root.tag().unwrap();
            assert!(root.remove_directory(&at("inside"), &["file"]).is_err(), "there is no tag");
            assert!(root.has_file(&at("inside/file")));
        }
    }
}
