//! What functions return, and the last error of each thread.

use super::super::abi::guarded;
use crate::error::{Error, ErrorKind, Result};
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};

/// What the functions return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum RingloadStatus {
    /// It was done.
    Ok = 0,
    /// There are no more tensors.
    End = 1,
    /// An option or argument cannot be used as given.
    InvalidInput = 2,
    /// A file, directory, shard or tensor that was asked for does not exist.
    NotFound = 3,
    /// The operating system or a store refused access.
    PermissionDenied = 4,
    /// The bytes are not a valid checkpoint.
    InvalidCheckpoint = 5,
    /// A source changed while it was being read.
    Changed = 6,
    /// The bytes that came are not those that their store says it keeps.
    Corrupt = 7,
    /// The tensors do not fit under the memory limit.
    MemoryLimit = 8,
    /// Memory could not be allocated, mapped or locked.
    OutOfMemory = 9,
    /// This build or machine cannot do what was asked.
    Unsupported = 10,
    /// A server cannot be reached.
    Unreachable = 11,
    /// Storage failed to deliver the bytes.
    Io = 12,
    /// A GPU or its driver failed.
    Device = 13,
    /// The load was stopped before it was done.
    Cancelled = 14,
    /// A bug in ringload.
    Bug = 15,
}

/// What a call that did not fail came to.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    Done,
    End,
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs `body`; its error is kept for this thread to ask for.
pub fn returned(body: impl FnOnce() -> Result<Outcome>) -> c_int {
    let outcome = guarded(None, || Some(body()));
    let status = match outcome {
        Some(Ok(Outcome::Done)) => RingloadStatus::Ok,
        Some(Ok(Outcome::End)) => RingloadStatus::End,
        Some(Err(error)) => {
            keep(&error);
            status_of(error.kind())
        }
        None => {
            keep(&Error::new(ErrorKind::Io, "the library panicked; this is a bug"));
            RingloadStatus::Bug
        }
    };
    status as c_int
}

fn keep(error: &Error) {
    // A text with a zero byte in it would end there.
    let sentence = CString::new(error.to_string().replace('\0', "?")).unwrap_or_default();
    LAST.set(sentence);
}

/// The last error of this thread, until the next.
pub fn last_error() -> *const c_char {
    LAST.with_borrow(|last| last.as_ptr())
}

fn status_of(kind: ErrorKind) -> RingloadStatus {
    match kind {
        ErrorKind::NotFound => RingloadStatus::NotFound,
        ErrorKind::PermissionDenied => RingloadStatus::PermissionDenied,
        ErrorKind::InvalidInput => RingloadStatus::InvalidInput,
        ErrorKind::InvalidCheckpoint => RingloadStatus::InvalidCheckpoint,
        ErrorKind::Changed => RingloadStatus::Changed,
        ErrorKind::Corrupt => RingloadStatus::Corrupt,
        ErrorKind::MemoryLimit => RingloadStatus::MemoryLimit,
        ErrorKind::OutOfMemory => RingloadStatus::OutOfMemory,
        ErrorKind::Unsupported => RingloadStatus::Unsupported,
        ErrorKind::Unreachable => RingloadStatus::Unreachable,
        ErrorKind::Io => RingloadStatus::Io,
        ErrorKind::Device => RingloadStatus::Device,
        ErrorKind::Cancelled => RingloadStatus::Cancelled,
    }
}
