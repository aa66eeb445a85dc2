//! The crate's errors as Python's: of the classes in `ringload._errors`, with the same text.

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use ringload::{Error, ErrorKind};

/// The name of the class for a kind of error.
fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::PermissionDenied => "PermissionDeniedError",
        ErrorKind::InvalidInput => "InvalidInputError",
        ErrorKind::InvalidCheckpoint => "InvalidCheckpointError",
        ErrorKind::Changed => "ChangedError",
        ErrorKind::Corrupt => "CorruptError",
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

/// `error` to be raised.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let sentence = error.to_string();
    let made = || {
        let classes = py.import("ringload._errors")?;
        let class = classes.getattr(class_name(error.kind()))?.cast_into::<PyType>()?;
        Ok(PyErr::from_type(class, (sentence,)))
    };
    made().unwrap_or_else(|failed: PyErr| failed)
}

/// `BufferError`, as the DLPack protocol asks for.
pub(crate) fn buffer_error(sentence: impl Into<String>) -> PyErr {
    PyBufferError::new_err(sentence.into())
}
