//! The kinds of errors.

/// The broad class of an error, by which a caller can decide what to do next.
///
/// ```
/// use ringload::{ErrorKind, Loader};
///
/// match Loader::new().load("/models/absent").map_err(|error| error.kind()) {
///     Ok(model) => println!("{} tensors", model.len()),
///     Err(ErrorKind::Unreachable | ErrorKind::Io) => println!("try again later"),
///     Err(ErrorKind::MemoryLimit) => println!("stream the tensors instead"),
///     Err(kind) => assert_eq!(kind.as_str(), "not_found"),
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A requested file, directory, shard or tensor does not exist.
    NotFound,
    /// The operating system refused access.
    PermissionDenied,
    /// An option or argument is invalid.
    InvalidInput,
    /// The bytes are not a valid checkpoint.
    InvalidCheckpoint,
    /// A source was truncated or replaced while it was being read.
    Changed,
    /// The bytes do not match a checksum: one that the store keeps for them, that was found beside the
    /// file, or that is in a manifest.
    Corrupt,
    /// Tensors hold NaN or infinity, and the load was to check that
    /// ([`Loader::check_finite`](crate::Loader::check_finite)).
    NotFinite,
    /// The tensors do not fit under the memory limit.
    MemoryLimit,
    /// Memory could not be allocated, mapped or locked.
    OutOfMemory,
    /// This build or machine does not support the requested operation.
    Unsupported,
    /// A server cannot be reached: its name does not resolve, it accepts no connection, or its
    /// certificate is not trusted.
    Unreachable,
    /// Storage failed to deliver the bytes.
    Io,
    /// A GPU or its driver failed.
    Device,
    /// The load was cancelled before it completed.
    Cancelled,
}

impl ErrorKind {
    /// The name, as a label for metrics: `not_found`, `memory_limit`, `cancelled` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::InvalidInput => "invalid_input",
            Self::InvalidCheckpoint => "invalid_checkpoint",
            Self::Changed => "changed",
            Self::Corrupt => "corrupt",
            Self::NotFinite => "not_finite",
            Self::MemoryLimit => "memory_limit",
            Self::OutOfMemory => "out_of_memory",
            Self::Unsupported => "unsupported",
            Self::Unreachable => "unreachable",
            Self::Io => "io",
            Self::Device => "device",
            Self::Cancelled => "cancelled",
        }
    }
}
