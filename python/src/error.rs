//! Conversion of the crate's errors to the exceptions of `ringload._errors`, with the same message.

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use ringload::{Error, ErrorKind};

/// Returns the name of the exception class for a kind of error.
fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::PermissionDenied => "PermissionDeniedError",
        ErrorKind::InvalidInput => "InvalidInputError",
        ErrorKind::InvalidCheckpoint => "InvalidCheckpointError",
        ErrorKind::Changed => "ChangedError",
        ErrorKind::Corrupt => "CorruptError",
        ErrorKind::NotFinite => "NotFiniteError",
        ErrorKind::MemoryLimit => "MemoryLimitError",
        ErrorKind::OutOfMemory => "OutOfMemoryError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::Unreachable => "UnreachableError",
        ErrorKind::Io => "IoError",
        ErrorKind::Device => "DeviceError",
        ErrorKind::Cancelled => "CancelledError",
        _ => "Error",
    }
}

/// Returns the exception for `error`.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let exception = || {
        let classes = py.import("ringload._errors")?;
        let class = classes.getattr(class_name(error.kind()))?.cast_into::<PyType>()?;
        Ok(PyErr::from_type(class, (error.to_string(),)))
    };
    exception().unwrap_or_else(|failed: PyErr| failed)
}

/// Returns a `BufferError`, as the DLPack protocol requires.
pub(crate) fn buffer_error(message: impl Into<String>) -> PyErr {
    PyBufferError::new_err(message.into())
}
