//! Response codes: the outcome of a call or of a range.
//!
//! The numbers are those of Run:ai's interface, the texts are ringload's. Since a code alone says
//! little, the text for the code of a thread's last failure is the message of that failure.

use crate::error::{Error, ErrorKind};
use crate::location::Scheme;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::sync::Arc;

/// The values that functions return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum RunaiFileStreamerResponse {
    /// The call succeeded.
    Success = 0,
    /// The streamer was ended. No more responses come.
    FinishedError = 1,
    /// A file or object cannot be opened or read.
    FileAccessError = 2,
    /// The range lies beyond the end of the file.
    EofError = 3,
    /// This build does not support `s3://`.
    S3NotSupported = 4,
    /// Not returned.
    GlibcPrerequisite = 5,
    /// The process has too many open files.
    InsufficientFdLimit = 6,
    /// An argument cannot be used.
    InvalidParameterError = 7,
    /// Not returned.
    EmptyRequestError = 8,
    /// Not returned.
    BusyError = 9,
    /// Not returned.
    CaFileNotFound = 10,
    /// Anything else.
    UnknownError = 11,
    /// Not returned.
    ObjPluginLoadError = 12,
    /// This build does not support `gs://`.
    GcsNotSupported = 13,
    /// This build does not support `az://`.
    AzureBlobNotSupported = 14,
    /// The file or object was replaced, truncated or corrupted while it was read.
    FileTruncatedError = 15,
    /// No response came in time.
    TimedOut = 16,
    /// Not returned: a request may mix stores and files.
    UnsupportedBackendMix = 17,
    /// Other credentials were set before.
    CredentialsAlreadySet = 18,
    /// Not returned: reads that can be retried were retried.
    RetryableFileAccessError = 19,
    /// Another strategy was set before, or a request was made before.
    FsStrategyConflict = 20,
    /// Not returned: where a machine lacks a strategy, the next best one is used.
    FsStrategyUnavailable = 21,
    /// Not returned.
    FsAsyncEngineError = 22,
    /// The device is neither the host nor a CUDA GPU.
    UnsupportedDeviceType = 23,
    /// There is no CUDA driver, or no GPU.
    DeviceUnavailable = 24,
    /// There is no GPU with this number, or an address is not in its memory.
    InvalidDevice = 25,
    /// The GPU has too little free memory, or too little host memory can be pinned.
    DeviceOutOfMemory = 26,
    /// Not returned.
    DeviceTransferError = 27,
    /// The GPU or its driver failed.
    DeviceDriverError = 28,
}

use RunaiFileStreamerResponse as Code;

/// The general text of each code, by number.
const TEXTS: [&CStr; 29] = [
    c"the call succeeded",
    c"the streamer was ended; no more responses come",
    c"a file or object cannot be opened or read",
    c"a range lies beyond the end of its file",
    c"this build of ringload does not support s3://",
    c"the C library is too old",
    c"this process has too many open files; raise the limit with ulimit -n",
    c"an argument cannot be used",
    c"the request is empty",
    c"the streamer is busy",
    c"the certificate file was not found",
    c"an unknown error",
    c"a plugin for object storage cannot be loaded",
    c"this build of ringload does not support gs://",
    c"this build of ringload does not support az://",
    c"a file or object was replaced, truncated or corrupted while it was read; load it again",
    c"no response came in time",
    c"several kinds of storage cannot be mixed",
    c"other credentials were set before; start another streamer for them",
    c"a file or object cannot be read at the moment; try again",
    c"another strategy was set before, or a request was made; set it before the first request",
    c"no strategy of the list can be used",
    c"the asynchronous reader failed",
    c"the device is neither the host nor a CUDA GPU",
    c"there is no CUDA driver, or no GPU",
    c"there is no GPU with this number, or an address is not in its memory",
    c"the GPU has too little free memory, or too little host memory can be pinned",
    c"a transfer to the GPU failed",
    c"the GPU or its driver failed; see nvidia-smi",
];

thread_local! {
    /// The code and message of this thread's last failure.
    static LAST_FAILURE: RefCell<Option<(c_int, CString)>> = const { RefCell::new(None) };
}

/// A failed call or range: the code, and a message if there is one.
#[derive(Debug, Clone)]
pub struct Failure {
    code: Code,
    message: Option<Arc<str>>,
}

impl Failure {
    /// Returns a failure without a message of its own.
    pub fn new(code: Code) -> Self {
        Self { code, message: None }
    }

    /// Returns the failure for `error`. With `on_device`, the destination is GPU memory.
    pub fn of(error: &Error, on_device: bool) -> Self {
        Self { code: code_of(error, on_device), message: Some(error.to_string().into()) }
    }

    /// Replaces the code.
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// Makes this the last failure of this thread, and returns the code.
    pub fn report(&self) -> c_int {
        let code = self.code as c_int;
        let message = self.message.as_deref().and_then(|message| CString::new(message).ok());
        LAST_FAILURE.set(message.map(|message| (code, message)));
        code
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

fn code_of(error: &Error, on_device: bool) -> Code {
    use std::error::Error as _;
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let errno = cause.and_then(io::Error::raw_os_error);
    match (error.kind(), errno) {
        (_, Some(libc::EMFILE | libc::ENFILE)) => Code::InsufficientFdLimit,
        (ErrorKind::Cancelled, _) => Code::FinishedError,
        (ErrorKind::Changed | ErrorKind::Corrupt, _) => Code::FileTruncatedError,
        (ErrorKind::OutOfMemory | ErrorKind::MemoryLimit, _) if on_device => {
            Code::DeviceOutOfMemory
        }
        (ErrorKind::OutOfMemory | ErrorKind::MemoryLimit, _) => Code::UnknownError,
        (ErrorKind::InvalidInput, _) if on_device => Code::InvalidDevice,
        (ErrorKind::Unsupported, _) if on_device => Code::DeviceUnavailable,
        (ErrorKind::Device, _) => Code::DeviceDriverError,
        _ => Code::FileAccessError,
    }
}

/// Returns the code for a build that does not support `scheme`, or `None` if this build does.
pub fn unsupported_scheme(scheme: Scheme) -> Option<Code> {
    match scheme {
        Scheme::S3 if cfg!(not(feature = "s3")) => Some(Code::S3NotSupported),
        Scheme::Gs if cfg!(not(feature = "gcs")) => Some(Code::GcsNotSupported),
        Scheme::Az if cfg!(not(feature = "azure")) => Some(Code::AzureBlobNotSupported),
        _ => None,
    }
}

/// Returns the text for `code`, which stays valid until the next failure of this thread.
pub fn text(code: c_int) -> *const c_char {
    let last = LAST_FAILURE.with_borrow(|last| {
        let last = last.as_ref().filter(|(of, _)| *of == code);
        last.map(|(_, message)| message.as_ptr())
    });
    let general = usize::try_from(code).ok().and_then(|code| TEXTS.get(code));
    last.unwrap_or_else(|| general.unwrap_or(&c"no response code").as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(code: c_int) -> String {
        // SAFETY: a text with a terminator, valid until this thread's next failure.
        unsafe { CStr::from_ptr(text(code)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_last_failure_of_a_thread_has_its_message_and_other_codes_a_general_text() {
        assert_eq!(Code::DeviceDriverError as usize + 1, TEXTS.len());
        let error = Error::new(ErrorKind::NotFound, "cannot open /x: no such file");
        assert_eq!(Failure::of(&error, false).report(), 2);
        assert_eq!(text_of(2), "cannot open /x: no such file");
        assert_eq!(text_of(16), "no response came in time");
        assert_eq!([text_of(-1), text_of(29)], ["no response code"; 2].map(str::to_owned));
        Failure::new(Code::FileAccessError).report();
        assert_eq!(text_of(2), "a file or object cannot be opened or read");
    }

    #[test]
    fn an_errno_in_the_source_of_an_error_decides_the_code() {
        let error = Error::from_io("open x", io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(Failure::of(&error, false).code, Code::InsufficientFdLimit);
        let error = Error::from_io("open x", io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(Failure::of(&error, false).code, Code::FileAccessError);
    }
}
