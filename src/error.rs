//! The one error type, and what every errno means here.
//!
//! An [`Error`] has a [`kind`](Error::kind) to match on, a sentence that says what was being done,
//! to which location, and what to do next, and the cause where there is one. The policy for what
//! the kernel may answer to a read lives in one table, [`errno`].

pub mod errno;

use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, coarsely: enough to decide what a caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file, directory, shard or tensor that was asked for does not exist.
    NotFound,
    /// The operating system refused access.
    PermissionDenied,
    /// An option or argument cannot be used as given.
    InvalidInput,
    /// The bytes are not a valid checkpoint.
    InvalidCheckpoint,
    /// A source changed (shrank, was rewritten) while it was being read.
    Changed,
    /// The bytes that came are not those that their store says it keeps: their checksum is another.
    Corrupt,
    /// The tensors do not fit under the memory limit.
    MemoryLimit,
    /// Memory could not be allocated, mapped or locked.
    OutOfMemory,
    /// This build or machine cannot do what was asked.
    Unsupported,
    /// A server cannot be reached: its name does not resolve, it accepts no connection, or its
    /// certificate is not trusted.
    Unreachable,
    /// Storage failed to deliver the bytes.
    Io,
    /// A GPU or its driver failed.
    Device,
    /// The load was stopped before it was done.
    Cancelled,
}

/// Why a call failed.
///
/// `Display` gives one sentence with the location and, where there is one, the remedy. The cause
/// is in [`source`](std::error::Error::source); it is not repeated in the sentence.
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` whose sentence is `context`.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An error of the operating system met while `doing` something, e.g. `"open model.safetensors"`.
    ///
    /// Kind and remedy come from the errno table. An `Error` that travelled inside of an I/O error
    /// says it all already: it comes out as it went in.
    pub fn from_io(doing: impl fmt::Display, source: std::io::Error) -> Self {
        let source = match source.downcast::<Error>() {
            Ok(error) => return error,
            Err(source) => source,
        };
        let meaning = errno::meaning(&source);
        let context = match meaning.remedy {
            "" => format!("cannot {doing}: {}", meaning.what),
            remedy => format!("cannot {doing}: {}; {remedy}", meaning.what),
        };
        Self::new(meaning.kind, context).with_source(source)
    }

    /// What went wrong, coarsely.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.context)?;
        if let Some(source) = &self.source {
            write!(f, " (caused by: {source})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
