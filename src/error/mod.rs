//! The crate's error type.
//!
//! An [`Error`] has a [`kind`](Error::kind) to match on, a sentence that names the failed operation,
//! the location and the remedy, and the underlying cause if there is one. One table, `errno`, says
//! how each errno is handled and reported.

pub(crate) mod errno;
mod escaped;
mod kind;
mod option;
mod redacted;
mod size;

pub use escaped::Escaped;
pub use kind::ErrorKind;
pub use option::Interface;
pub(crate) use option::option;
pub(crate) use redacted::redacted;
pub use redacted::shown;
pub(crate) use size::Size;

use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a failed call.
///
/// ```
/// use ringload::{ErrorKind, Loader};
///
/// let error = Loader::new().load("/models/absent").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// println!("{error}"); // what failed, where, and what helps
/// ```
///
/// `Display` writes one sentence with the location and, where one is known, the remedy. The cause
/// is available from [`source`](std::error::Error::source) and is not repeated in the sentence.
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error of `kind` whose sentence is `context`. Control characters in it, which may
    /// come from a file or a server, are escaped, and the passwords and queries of URLs omitted.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: shown(context.into()), source: None }
    }

    /// An error of kind [`InvalidInput`](ErrorKind::InvalidInput).
    pub(crate) fn invalid_input(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, context)
    }

    /// An error for `what`, which needs `feature` of the crate, with which this build was not made.
    pub(crate) fn needs_feature(what: impl fmt::Display, feature: &str) -> Self {
        let sentence =
            format!("{what} needs the feature {feature} of ringload, and this build is without it");
        Self::new(ErrorKind::Unsupported, sentence)
    }

    /// Returns this error with `source` as its cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns this error with `text` at the end of its sentence.
    #[must_use]
    pub(crate) fn adding(mut self, text: impl fmt::Display) -> Self {
        self.context.push_str(&shown(text));
        self
    }

    /// Creates the error for an I/O error that occurred while `doing` something, for example
    /// `"open model.safetensors"`.
    ///
    /// Kind and remedy come from the errno table. If the I/O error wraps an `Error`, that `Error`
    /// is returned unchanged.
    pub fn from_io(doing: impl fmt::Display, source: std::io::Error) -> Self {
        let source = match source.downcast::<Error>() {
            Ok(error) => return error,
            Err(source) => source,
        };
        let (kind, what, remedy) = errno::meaning(&source);
        let separator = if remedy.is_empty() { "" } else { "; " };
        let context = format!("cannot {doing}: {what}{separator}{remedy}");
        Self::new(kind, context).with_source(source)
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&**self.source.as_ref()?)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.context)?;
        if let Some(source) = &self.source {
            write!(f, " (caused by: {})", shown(source))?;
        }
        Ok(())
    }
}
