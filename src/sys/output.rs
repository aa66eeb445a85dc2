//! Opens the files that a user names for output.
//!
//! Such a file may be a pipe, a terminal or a device. Opening one never waits: a FIFO that nobody
//! reads is an error. A failure is reported with the cause and the remedy of a file that is written.
//! The table of [`errno`](crate::error::errno) has those of files that are read.

use super::open::special;
use crate::error::{Error, ErrorKind};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that is open for writing. Its content is unchanged yet.
#[derive(Debug)]
pub struct OutputFile {
    /// The open file.
    pub file: File,
    /// Whether the file was created.
    pub is_new: bool,
    path: PathBuf,
    /// The purpose of the file in messages, such as `trace`.
    what: &'static str,
}

impl OutputFile {
    /// Opens `path`, and creates it if nothing is there. `what` is its purpose for messages.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn open(path: &Path, what: &'static str) -> Result<Self, Error> {
        let mut is_new = true;
        let opened = open(path, true).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                is_new = false;
                open(path, false)
            }
            _ => Err(error),
        });
        let file = opened.map_err(|error| cannot_write(path, what, error))?;
        Ok(Self { file, is_new, path: path.to_owned(), what })
    }

    /// Checks that the file, by whatever name it was opened, is none of `inputs`, which are read
    /// while it is written.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), naming the input that it is.
    pub fn check_is_none_of<'a>(
        &self,
        inputs: impl IntoIterator<Item = &'a Path>,
    ) -> Result<(), Error> {
        let Ok(own) = self.file.metadata() else { return Ok(()) };
        let is_own = |path: &&Path| {
            fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (own.dev(), own.ino()))
        };
        let Some(input) = inputs.into_iter().find(is_own).filter(|_| own.is_file()) else {
            return Ok(());
        };
        let sentence = format!(
            "cannot write the {} to {}: it is the file {}, which is read; name another file",
            self.what,
            self.path.display(),
            input.display()
        );
        Err(Error::invalid_input(sentence))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error for a write that failed.
    pub fn error(&self, cause: io::Error) -> Error {
        cannot_write(&self.path, self.what, cause)
    }
}

fn open(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(new).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

fn cannot_write(path: &Path, what: &str, cause: io::Error) -> Error {
    let doing = format!("write the {what} to {}", path.display());
    let Some((kind, reason, remedy)) = meaning(path, &cause) else {
        return Error::from_io(doing, cause);
    };
    Error::new(kind, format!("cannot {doing}: {reason}; {remedy}")).with_source(cause)
}

/// The kind, cause and remedy of an error that means something else for a file that is read.
fn meaning(path: &Path, error: &io::Error) -> Option<(ErrorKind, String, &'static str)> {
    use ErrorKind::{InvalidInput, Io, NotFound, PermissionDenied};
    let kind_of_file = || fs::metadata(path).ok().and_then(|data| special(data.file_type()));
    let (kind, reason, remedy) = match Errno::from_raw(error.raw_os_error()?) {
        Errno::ENOENT => match fs::read_link(path) {
            Ok(target) => {
                let reason = format!("it is a link to {}, which is not there", target.display());
                return Some((NotFound, reason, "remove the link, or name another file"));
            }
            Err(_) => (NotFound, "its directory does not exist", "create the directory"),
        },
        Errno::ENXIO => match kind_of_file() {
            Some("a FIFO") => {
                (InvalidInput, "it is a FIFO that nobody reads", "start its reader first")
            }
            Some("a socket") => (InvalidInput, "it is a socket", "name a file"),
            _ => (Io, "the device is not there", "name another file"),
        },
        Errno::EISDIR => (InvalidInput, "it is a directory", "name a file in the directory"),
        Errno::EACCES => (
            PermissionDenied,
            "this user may not write to it",
            "name another file, or check the owner and mode of the file and of its directory",
        ),
        Errno::EPERM => (
            PermissionDenied,
            "the file may not be changed",
            "name another file, or check its attributes with lsattr",
        ),
        Errno::EPIPE => (Io, "its reader has ended", "check the program that reads it"),
        Errno::ETXTBSY => (InvalidInput, "it is a program that runs", "name another file"),
        Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EIO | Errno::EFAULT => {
            (Io, "it cannot be written to", "name another file")
        }
        _ => return None,
    };
    Some((kind, reason.to_owned(), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_output_blocks_again_once_it_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let output = OutputFile::open(&path, "trace").unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&output.file, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        assert!(output.is_new && !OutputFile::open(&path, "trace").unwrap().is_new);
    }

    #[test]
    fn what_cannot_be_written_has_its_own_cause_and_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        symlink("/nowhere/x", at("link")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for (path, told) in [
            (at("fifo"), "it is a FIFO that nobody reads; start its reader first"),
            (at("socket"), "it is a socket; name a file"),
            (at("link"), "it is a link to /nowhere/x, which is not there; remove the link"),
            (at("loop"), "too many symbolic links; check the path for a loop of links"),
            (at("none/x"), "its directory does not exist; create the directory"),
            (at("fifo/x"), "a part of the path is not a directory; check the path"),
            (directory.path().into(), "it is a directory; name a file in the directory"),
        ] {
            let error = OutputFile::open(&path, "trace").unwrap_err().to_string();
            let begin = format!("cannot write the trace to {}: {told}", path.display());
            assert!(error.starts_with(&begin), "{error}");
        }
        let full = OutputFile::open(Path::new("/dev/full"), "trace").unwrap();
        let told = full.error(Errno::ENOSPC.into()).to_string();
        assert!(told.ends_with("the disk is full; free space, or use another directory"), "{told}");
    }
}
