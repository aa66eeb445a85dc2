//! The errno table: how each errno is handled and reported.
//!
//! [`action`] says how the engine handles a failed read; [`meaning`] is the text of the error that
//! the user sees when the read cannot be recovered. The meanings follow errno(3), read(2), open(2)
//! and io_uring_enter(2).

use super::kind::ErrorKind;
use nix::errno::Errno;
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

/// How an errno is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The kind of the resulting [`Error`](super::Error).
    pub kind: ErrorKind,
    /// A plain description of the failure.
    pub what: &'static str,
    /// What the user can do; empty if there is no useful advice.
    pub remedy: &'static str,
}

struct Row {
    errno: Errno,
    action: ErrnoAction,
    meaning: Meaning,
}

const fn row(
    errno: Errno,
    action: ErrnoAction,
    kind: ErrorKind,
    what: &'static str,
    remedy: &'static str,
) -> Row {
    Row { errno, action, meaning: Meaning { kind, what, remedy } }
}

use ErrnoAction::{Downgrade, Fail, Retry};
use ErrorKind::{InvalidInput, Io, NotFound, OutOfMemory, PermissionDenied, Unsupported};

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(Errno::EINTR,       Retry,     Io, "a signal interrupted the read", ""),
    row(Errno::EAGAIN,      Retry,     Io, "the kernel had no resources for the read at that moment", "lower the number of engines"),
    row(Errno::ECANCELED,   Retry,     Io, "the kernel cancelled the read", ""),
    row(Errno::EINVAL,      Downgrade, Io, "the file system does not support direct I/O or this alignment", "try --read-path buffered"),
    row(Errno::EOPNOTSUPP,  Downgrade, Unsupported, "the file system does not support this kind of read", "try --read-path buffered"),
    row(Errno::ENOSYS,      Downgrade, Unsupported, "the kernel does not have this system call", "try --read-path buffered"),
    row(Errno::EFAULT,      Fail,      Io, "the destination memory is not accessible", ""),
    row(Errno::EIO,         Fail,      Io, "the storage device reported an I/O error", "check the kernel log and the disk's health"),
    row(Errno::EREMOTEIO,   Fail,      Io, "the remote storage reported an I/O error", "check the file server"),
    row(Errno::ENXIO,       Fail,      Io, "the device is gone", "check that the disk is still attached"),
    row(Errno::ENODEV,      Fail,      Io, "the device is gone", "check that the disk is still attached"),
    row(Errno::ETIMEDOUT,   Fail,      Io, "the storage did not answer in time", "check the mount and its server"),
    row(Errno::ESTALE,      Fail,      ErrorKind::Changed, "the file was replaced on the file server", "load it again"),
    row(Errno::EOVERFLOW,   Fail,      Io, "an offset is too large for the file system", ""),
    row(Errno::ENOENT,      Fail,      NotFound, "no such file or directory", "check the path"),
    row(Errno::ENOTDIR,     Fail,      NotFound, "a part of the path is not a directory", "check the path"),
    row(Errno::EACCES,      Fail,      PermissionDenied, "permission denied", "check the owner and mode of the file and of its directories"),
    row(Errno::EPERM,       Fail,      PermissionDenied, "operation not permitted", "check the container's seccomp profile and capabilities"),
    row(Errno::EISDIR,      Fail,      InvalidInput, "it is a directory", "name a file in the directory"),
    row(Errno::ELOOP,       Fail,      InvalidInput, "too many symbolic links", "check the path for a loop of links"),
    row(Errno::ENAMETOOLONG,Fail,      InvalidInput, "the path is too long", ""),
    row(Errno::EMFILE,      Fail,      Io, "this process has too many open files", "raise the limit with ulimit -n"),
    row(Errno::ENFILE,      Fail,      Io, "this machine has too many open files", "raise fs.file-max"),
    row(Errno::ENOMEM,      Fail,      OutOfMemory, "out of memory, or over the locked-memory limit", "free memory, raise ulimit -l, or set a smaller --memory-limit"),
    row(Errno::ENOSPC,      Fail,      Io, "the disk is full", "free space, or use another directory"),
    row(Errno::EDQUOT,      Fail,      Io, "the disk quota is used up", "free space, or use another directory"),
    row(Errno::EROFS,       Fail,      Io, "the file system is read-only", "use another directory"),
    row(Errno::EBADF,       Fail,      Io, "the file was closed", ""),
];

const UNKNOWN: Meaning =
    Meaning { kind: Io, what: "the operating system reported an error", remedy: "" };

fn find(error: &io::Error) -> Option<&'static Row> {
    let errno = Errno::from_raw(error.raw_os_error()?);
    TABLE.iter().find(|row| row.errno == errno)
}

/// How the engine handles a read that failed with `error`. Unknown errors are
/// [`Fail`](ErrnoAction::Fail).
pub(crate) fn action(error: &io::Error) -> ErrnoAction {
    find(error).map_or(Fail, |row| row.action)
}

/// How `error` is reported.
pub(super) fn meaning(error: &io::Error) -> Meaning {
    find(error).map_or(UNKNOWN, |row| row.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_one_line() {
        for (i, row) in TABLE.iter().enumerate() {
            let twin = TABLE[i + 1..].iter().any(|other| other.errno == row.errno);
            assert!(!twin, "{:?} is in the table twice", row.errno);
        }
    }

    #[test]
    fn an_error_without_errno_fails() {
        assert_eq!(action(&io::Error::other("made up")), Fail);
        assert_eq!(meaning(&io::Error::other("made up")), UNKNOWN);
    }
}
