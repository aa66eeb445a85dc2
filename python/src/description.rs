//! What the headers of a checkpoint say about its tensors.

use crate::error::raised;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use ringload::{Error, ErrorKind, TensorInfo};

/// The tensor called `name`.
pub(crate) fn found<'a>(
    py: Python<'_>,
    checkpoint: &'a ringload::Checkpoint,
    name: &str,
) -> PyResult<&'a TensorInfo> {
    checkpoint.tensor(name).ok_or_else(|| {
        let sentence = format!("the checkpoint has no tensor called {name:?}");
        raised(py, &Error::new(ErrorKind::NotFound, sentence))
    })
}

/// What a header says about a tensor, as Python has it.
pub(crate) fn described<'py>(
    py: Python<'py>,
    checkpoint: &ringload::Checkpoint,
    info: &TensorInfo,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let shard = &checkpoint.shards()[info.shard()];
    dict.set_item("dtype", info.dtype().to_string())?;
    dict.set_item("shape", PyTuple::new(py, info.shape())?)?;
    dict.set_item("nbytes", info.len_bytes())?;
    dict.set_item("shard", shard.location().to_string())?;
    dict.set_item("data_offset", info.offset_bytes() - shard.data_offset_bytes())?;
    Ok(dict)
}
