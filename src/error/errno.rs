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

/// How an errno is reported: the kind of the resulting [`Error`](super::Error), a plain description
/// of the failure, and the remedy for the user, which is empty if there is no useful advice.
type Meaning = (ErrorKind, &'static str, &'static str);

use ErrnoAction::{Downgrade, Fail, Retry};
use ErrorKind::{InvalidInput, Io, NotFound, OutOfMemory, PermissionDenied, Unsupported};

/// An errno, its action, the kind of its error, its description and its remedy.
type Row = (Errno, ErrnoAction, ErrorKind, &'static str, &'static str);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (Errno::EINTR,       Retry,     Io, "a signal interrupted the read", ""),
    (Errno::EAGAIN,      Retry,     Io, "the kernel had no resources for the read at that moment", "lower the number of engines"),
    (Errno::ECANCELED,   Retry,     Io, "the kernel cancelled the read", ""),
    (Errno::EINVAL,      Downgrade, Io, "the file system does not support direct I/O or this alignment", "try --read-path buffered"),
    (Errno::EOPNOTSUPP,  Downgrade, Unsupported, "the file system does not support this kind of read", "try --read-path buffered"),
    (Errno::ENOSYS,      Downgrade, Unsupported, "the kernel does not have this system call", "try --read-path buffered"),
    (Errno::EFAULT,      Fail,      Io, "the destination memory is not accessible", ""),
    (Errno::EIO,         Fail,      Io, "the storage device reported an I/O error", "check the kernel log and the disk's health"),
    (Errno::EREMOTEIO,   Fail,      Io, "the remote storage reported an I/O error", "check the file server"),
    (Errno::ENXIO,       Fail,      Io, "the device is gone", "check that the disk is still attached"),
    (Errno::ENODEV,      Fail,      Io, "the device is gone", "check that the disk is still attached"),
    (Errno::ETIMEDOUT,   Fail,      Io, "the storage did not answer in time", "check the mount and its server"),
    (Errno::ESTALE,      Fail,      ErrorKind::Changed, "the file was replaced on the file server", "load it again"),
    (Errno::EOVERFLOW,   Fail,      Io, "an offset is too large for the file system", ""),
    (Errno::EEXIST,      Fail,      InvalidInput, "a file or a link of this name is there already", "remove it, or give another name"),
    (Errno::ENOENT,      Fail,      NotFound, "no such file or directory", "check the path"),
    (Errno::ENOTDIR,     Fail,      NotFound, "a part of the path is not a directory", "check the path"),
    (Errno::EACCES,      Fail,      PermissionDenied, "permission denied", "check the owner and mode of the file and of its directories"),
    (Errno::EPERM,       Fail,      PermissionDenied, "operation not permitted", "check the container's seccomp profile and capabilities"),
    (Errno::EISDIR,      Fail,      InvalidInput, "it is a directory", "name a file in the directory"),
    (Errno::ELOOP,       Fail,      InvalidInput, "too many symbolic links", "check the path for a loop of links"),
    (Errno::ENAMETOOLONG,Fail,      InvalidInput, "the path is too long", ""),
    (Errno::EMFILE,      Fail,      Io, "this process has too many open files", "raise the limit with ulimit -n"),
    (Errno::ENFILE,      Fail,      Io, "this machine has too many open files", "raise fs.file-max"),
    (Errno::ENOMEM,      Fail,      OutOfMemory, "out of memory, or over the locked-memory limit", "free memory, raise ulimit -l, or set a smaller --memory-limit"),
    (Errno::EFBIG,       Fail,      Io, "the file would be larger than is allowed", "raise ulimit -f"),
    (Errno::ENOSPC,      Fail,      Io, "the disk is full", "free space, or use another directory"),
    (Errno::EDQUOT,      Fail,      Io, "the disk quota is used up", "free space, or use another directory"),
    (Errno::EROFS,       Fail,      Io, "the file system is read-only", "use another directory"),
    (Errno::EBADF,       Fail,      Io, "the file was closed", ""),
];

const UNKNOWN: Meaning = (Io, "the operating system reported an error", "");

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
