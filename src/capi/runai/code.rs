//! Response codes: what a call or a range came to.
//!
//! The numbers are the interface's. The sentences are ours, and where the last error of a thread is of
//! the code that is asked about, it is that error's: codes alone say too little.

use crate::error::{Error, ErrorKind};
use crate::location::Scheme;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::sync::Arc;

/// What the functions return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum RunaiFileStreamerResponse {
    /// It was done.
    Success = 0,
    /// The streamer is being ended: no more responses come.
    FinishedError = 1,
    /// A file or object cannot be opened or read.
    FileAccessError = 2,
    /// The range lies beyond the end of the file.
    EofError = 3,
    /// This build was made without `s3://`.
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
    /// This build was made without `gs://`.
    GcsNotSupported = 13,
    /// This build was made without `az://`.
    AzureBlobNotSupported = 14,
    /// The file or object was replaced, cut off or corrupted while it was read.
    FileTruncatedError = 15,
    /// No response came in time.
    TimedOut = 16,
    /// Not returned: stores and files may be mixed.
    UnsupportedBackendMix = 17,
    /// Other credentials were set before.
    CredentialsAlreadySet = 18,
    /// Not returned: what can be asked for again was.
    RetryableFileAccessError = 19,
    /// Another strategy was set before, or files were read already.
    FsStrategyConflict = 20,
    /// Not returned: where a machine lacks one, the next best is taken.
    FsStrategyUnavailable = 21,
    /// Not returned.
    FsAsyncEngineError = 22,
    /// The device is neither the host nor a CUDA GPU.
    UnsupportedDeviceType = 23,
    /// There is no driver, or no GPU.
    DeviceUnavailable = 24,
    /// There is no GPU of this number, or an address is not of its memory.
    InvalidDevice = 25,
    /// The GPU has too little memory, or too little can be pinned.
    DeviceOutOfMemory = 26,
    /// Not returned.
    DeviceTransferError = 27,
    /// The GPU or its driver failed.
    DeviceDriverError = 28,
}

use RunaiFileStreamerResponse as Code;

/// Every code with its sentence, by number.
const SENTENCES: [&CStr; 29] = [
    c"done",
    c"the streamer is being ended; no more responses come",
    c"a file or object cannot be opened or read",
    c"a range lies beyond the end of its file",
    c"this build of ringload was made without s3://",
    c"the C library is too old",
    c"this process has too many open files; raise the limit with ulimit -n",
    c"an argument cannot be used",
    c"the request is empty",
    c"the streamer is busy",
    c"the file of certificates was not found",
    c"an error of no other kind",
    c"a plugin for object storage cannot be loaded",
    c"this build of ringload was made without gs://",
    c"this build of ringload was made without az://",
    c"a file or object was replaced, cut off or corrupted while it was read; load it again",
    c"no response came in time",
    c"stores of several kinds cannot be mixed",
    c"other credentials were set before; start another streamer for them",
    c"a file or object cannot be read at the moment",
    c"another strategy was set before, or files were read already; set it before the first request",
    c"no strategy of the list can be used",
    c"the asynchronous reader failed",
    c"the device is neither the host nor a CUDA GPU",
    c"there is no CUDA driver, or no GPU",
    c"there is no GPU of this number, or an address is not of its memory",
    c"there is too little memory on the GPU, or too little that can be pinned",
    c"a transfer to the GPU failed",
    c"the GPU or its driver failed; see nvidia-smi",
];

thread_local! {
    /// The last error that this thread was told of.
    static LAST: RefCell<Option<(c_int, CString)>> = const { RefCell::new(None) };
}

/// Why something failed: a code, and the sentence to it if there is one.
#[derive(Debug, Clone)]
pub struct Failure {
    pub code: Code,
    why: Option<Arc<str>>,
}

impl Failure {
    /// A failure, seen by `code` alone.
    pub fn new(code: Code) -> Self {
        Self { code, why: None }
    }

    /// What `error` is to one who reads host memory or, with `on_device`, a GPU's.
    pub fn of(error: &Error, on_device: bool) -> Self {
        Self { code: code_of(error, on_device), why: Some(error.to_string().into()) }
    }

    /// The same under another code.
    pub fn under(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// Tells this thread: the next question about the code is answered with the sentence.
    pub fn tell(&self) -> c_int {
        let code = self.code as c_int;
        let why = self.why.as_deref().and_then(|why| CString::new(why).ok());
        LAST.set(why.map(|why| (code, why)));
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

/// The code of a build without `scheme`.
pub fn lacking(scheme: Scheme) -> Option<Code> {
    match scheme {
        Scheme::S3 if cfg!(not(feature = "s3")) => Some(Code::S3NotSupported),
        Scheme::Gs if cfg!(not(feature = "gcs")) => Some(Code::GcsNotSupported),
        Scheme::Az if cfg!(not(feature = "azure")) => Some(Code::AzureBlobNotSupported),
        _ => None,
    }
}

/// The sentence to `code`, which stays there until this thread is told of another error.
pub fn sentence(code: c_int) -> *const c_char {
    let last = LAST.with_borrow(|last| {
        let last = last.as_ref().filter(|(of, _)| *of == code);
        last.map(|(_, why)| why.as_ptr())
    });
    let general = usize::try_from(code).ok().and_then(|code| SENTENCES.get(code));
    last.unwrap_or_else(|| general.unwrap_or(&c"no response code").as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: c_int) -> String {
        // SAFETY: a text that ends, and stays while nothing else is told to this thread.
        unsafe { CStr::from_ptr(sentence(code)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_thread_is_told_its_last_error_and_of_others_what_they_mean() {
        assert_eq!(Code::DeviceDriverError as usize + 1, SENTENCES.len());
        let error = Error::new(ErrorKind::NotFound, "cannot open /x: no such file");
        assert_eq!(Failure::of(&error, false).tell(), 2);
        assert_eq!(said(2), "cannot open /x: no such file");
        assert_eq!(said(16), "no response came in time");
        assert_eq!([said(-1), said(29)], ["no response code"; 2].map(str::to_owned));
        Failure::new(Code::FileAccessError).tell();
        assert_eq!(said(2), "a file or object cannot be opened or read");
    }

    #[test]
    fn the_errno_below_counts_where_it_says_more() {
        let error = Error::from_io("open x", io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(Failure::of(&error, false).code, Code::InsufficientFdLimit);
        let error = Error::from_io("open x", io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(Failure::of(&error, false).code, Code::FileAccessError);
    }
}
