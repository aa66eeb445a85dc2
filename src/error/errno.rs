//! The errno table: how each errno is handled and reported.
//!
//! [`action`] says how the engine handles a failed read; [`meaning`] is the text of the error that
//! the user sees when the read cannot be recovered. The meanings follow errno(3), read(2), open(2)
//! and io_uring_enter(2).

use super::kind::ErrorKind;
use super::option::{OptionRef, option};
use nix::errno::Errno;
use std::fmt;
use std::io;

/// How the engine handles a failed read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrnoAction {
    /// The failure is transient: repeat the read.
    Retry,
    /// The kernel does not support this form of read: fall back to the source's next path (direct
    /// to buffered), or fail if there is none.
    Downgrade,
    /// Report the error.
    Fail,
}

/// How an errno is reported: the kind of the resulting [`Error`](super::Error), a plain description
/// of the failure, and the remedy for the user.
type Meaning = (ErrorKind, &'static str, Remedy);

/// What the user can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// There is no useful advice.
    No,
    Text(&'static str),
    /// A text, followed by an option.
    Set(&'static str, OptionRef),
}

impl Remedy {
    pub fn is_empty(self) -> bool {
        self == Self::No
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Set(text, option) => write!(f, "{text} {option}"),
        }
    }
}

use ErrnoAction::{Downgrade, Fail, Retry};
use ErrorKind::{InvalidInput, Io, NotFound, OutOfMemory, PermissionDenied, Unsupported};
use Remedy::{No, Set, Text};

/// An errno, its action, the kind of its error, its description and its remedy.
type Row = (Errno, ErrnoAction, ErrorKind, &'static str, Remedy);

const BUFFERED: OptionRef = option("read_path").set_to("buffered");

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (Errno::EINTR,       Retry,     Io, "a signal interrupted the read", No),
    (Errno::EAGAIN,      Retry,     Io, "the kernel had no resources for the read at that moment", Set("lower", option("engines"))),
    (Errno::ECANCELED,   Retry,     Io, "the kernel cancelled the read", No),
    (Errno::EINVAL,      Downgrade, Io, "the file system does not support direct I/O or this alignment", Set("try", BUFFERED)),
    (Errno::EOPNOTSUPP,  Downgrade, Unsupported, "the file system does not support this kind of read", Set("try", BUFFERED)),
    (Errno::ENOSYS,      Downgrade, Unsupported, "the kernel does not have this system call", Set("try", BUFFERED)),
    (Errno::EFAULT,      Fail,      Io, "the destination memory is not accessible", No),
    (Errno::EIO,         Fail,      Io, "the storage device reported an I/O error", Text("check the kernel log and the disk's health")),
    (Errno::EREMOTEIO,   Fail,      Io, "the remote storage reported an I/O error", Text("check the file server")),
    (Errno::ENXIO,       Fail,      Io, "the device is gone", Text("check that the disk is still attached")),
    (Errno::ENODEV,      Fail,      Io, "the device is gone", Text("check that the disk is still attached")),
    (Errno::ETIMEDOUT,   Fail,      Io, "the storage did not answer in time", Text("check the mount and its server")),
    (Errno::ESTALE,      Fail,      ErrorKind::Changed, "the file was replaced on the file server", Text("load it again")),
    (Errno::EOVERFLOW,   Fail,      Io, "an offset is too large for the file system", No),
    (Errno::EEXIST,      Fail,      InvalidInput, "a file or a link of this name is there already", Text("remove it, or give another name")),
    (Errno::ENOENT,      Fail,      NotFound, "no such file or directory", Text("check the path")),
    (Errno::ENOTDIR,     Fail,      NotFound, "a part of the path is not a directory", Text("check the path")),
    (Errno::EACCES,      Fail,      PermissionDenied, "permission denied", Text("check the owner and mode of the file and of its directories")),
    (Errno::EPERM,       Fail,      PermissionDenied, "operation not permitted", Text("check the container's seccomp profile and capabilities")),
    (Errno::EISDIR,      Fail,      InvalidInput, "it is a directory", Text("name a file in the directory")),
    (Errno::ELOOP,       Fail,      InvalidInput, "too many symbolic links", Text("check the path for a loop of links")),
    (Errno::ENAMETOOLONG,Fail,      InvalidInput, "the path is too long", No),
    (Errno::EMFILE,      Fail,      Io, "this process has too many open files", Text("raise the limit with ulimit -n")),
    (Errno::ENFILE,      Fail,      Io, "this machine has too many open files", Text("raise fs.file-max")),
    (Errno::ENOMEM,      Fail,      OutOfMemory, "out of memory, or over the locked-memory limit", Set("free memory, raise ulimit -l, or lower", option("memory_limit"))),
    (Errno::EFBIG,       Fail,      Io, "the file would be larger than is allowed", Text("raise ulimit -f")),
    (Errno::ENOSPC,      Fail,      Io, "the disk is full", Text("free space, or use another directory")),
    (Errno::EDQUOT,      Fail,      Io, "the disk quota is used up", Text("free space, or use another directory")),
    (Errno::EROFS,       Fail,      Io, "the file system is read-only", Text("use another directory")),
    (Errno::EBADF,       Fail,      Io, "the file was closed", No),
];

const UNKNOWN: Meaning = (Io, "the operating system reported an error", No);

fn find(error: &io::Error) -> Option<&'static Row> {
    let errno = Errno::from_raw(error.raw_os_error()?);
    TABLE.iter().find(|row| row.0 == errno)
}

/// How the engine handles a read that failed with `error`. Unknown errors are
/// [`Fail`](ErrnoAction::Fail).
pub(crate) fn action(error: &io::Error) -> ErrnoAction {
    find(error).map_or(Fail, |row| row.1)
}

/// How `error` is reported.
pub(super) fn meaning(error: &io::Error) -> Meaning {
    find(error).map_or(UNKNOWN, |&(_, _, kind, what, remedy)| (kind, what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_one_line() {
        for (i, row) in TABLE.iter().enumerate() {
            let twin = TABLE[i + 1..].iter().any(|other| other.0 == row.0);
            assert!(!twin, "{:?} is in the table twice", row.0);
        }
    }

    #[test]
    fn an_error_without_errno_fails() {
        assert_eq!(action(&io::Error::other("made up")), Fail);
        assert_eq!(meaning(&io::Error::other("made up")), UNKNOWN);
    }
}
