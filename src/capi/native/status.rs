//! The return values of functions, and the last error of each thread.

use crate::capi::abi::guarded;
use crate::error::{Error, ErrorKind, Result};
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};

/// The values that functions return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum RingloadStatus {
    /// The call succeeded.
    Ok = 0,
    /// There are no more tensors.
    End = 1,
    /// An option or argument cannot be used as given.
    InvalidInput = 2,
    /// A file, directory, shard or tensor does not exist.
    NotFound = 3,
    /// The operating system or a store refused access.
    PermissionDenied = 4,
    /// The bytes are not a valid checkpoint.
    InvalidCheckpoint = 5,
    /// A source changed while it was being read.
    Changed = 6,
    /// The bytes do not match their checksum.
    Corrupt = 7,
    /// The tensors do not fit under the memory limit.
    MemoryLimit = 8,
    /// Memory could not be allocated, mapped or locked.
    OutOfMemory = 9,
    /// This build or machine does not support the request.
    Unsupported = 10,
    /// A server cannot be reached.
    Unreachable = 11,
    /// Storage failed to deliver the bytes.
    Io = 12,
    /// A GPU or its driver failed.
    Device = 13,
    /// The load was cancelled.
    Cancelled = 14,
    /// A bug in ringload.
    Bug = 15,
    /// Tensors hold NaN or infinity, and the load was to check that.
    NotFinite = 16,
}

/// The outcome of a call that did not fail.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    Done,
    End,
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs `body` and returns its status. An error becomes the last one of this thread.
pub fn status_of(body: impl FnOnce() -> Result<Outcome>) -> c_int {
    let outcome = guarded(None, || Some(body()));
    let status = match outcome {
        Some(Ok(Outcome::Done)) => RingloadStatus::Ok,
        Some(Ok(Outcome::End)) => RingloadStatus::End,
        Some(Err(error)) => {
            set_last_error(&error);
            status_of_kind(error.kind())
        }
        None => {
            set_last_error(&Error::new(ErrorKind::Io, "the library panicked; this is a bug"));
            RingloadStatus::Bug
        }
    };
    status as c_int
}

fn set_last_error(error: &Error) {
    // C would take a zero byte for the end of the text.
    let message = CString::new(error.to_string().replace('\0', "?")).unwrap_or_default();
    LAST_ERROR.set(message);
}

/// Returns the message of this thread's last error, which is valid until the next one.
pub fn last_error() -> *const c_char {
    LAST_ERROR.with_borrow(|last| last.as_ptr())
}

fn status_of_kind(kind: ErrorKind) -> RingloadStatus {
    match kind {
        ErrorKind::NotFound => RingloadStatus::NotFound,
        ErrorKind::PermissionDenied => RingloadStatus::PermissionDenied,
        ErrorKind::InvalidInput => RingloadStatus::InvalidInput,
        ErrorKind::InvalidCheckpoint => RingloadStatus::InvalidCheckpoint,
        ErrorKind::Changed => RingloadStatus::Changed,
        ErrorKind::Corrupt => RingloadStatus::Corrupt,
        ErrorKind::NotFinite => RingloadStatus::NotFinite,
        ErrorKind::MemoryLimit => RingloadStatus::MemoryLimit,
        ErrorKind::OutOfMemory => RingloadStatus::OutOfMemory,
        ErrorKind::Unsupported => RingloadStatus::Unsupported,
        ErrorKind::Unreachable => RingloadStatus::Unreachable,
        ErrorKind::Io => RingloadStatus::Io,
        ErrorKind::Device => RingloadStatus::Device,
        ErrorKind::Cancelled => RingloadStatus::Cancelled,
    }
}
