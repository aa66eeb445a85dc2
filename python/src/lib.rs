//! The native module of the Python package: `ringload._ringload`.
//!
//! ```text
//! Loader (options)  --stream-->  Stream  --next-->  Tensor  --__dlpack__-->  torch, numpy, jax
//!                   --open---->  Checkpoint  --read-->  Tensor
//! ```
//!
//! Everything that waits gives the interpreter up and looks for signals (`waiting`). What a process
//! made is of no use in its children (`ringload::process`): a loader starts anew there, a stream says
//! so. What Python users see beyond that is written in Python, beside this: `ringload/*.py`.
//!
//! Unsafe code is confined to `capsule` (what the interpreter holds of DLPack).

#[allow(unsafe_code)]
mod capsule;
mod checkpoint;
mod ending;
mod error;
mod loader;
mod options;
mod stream;
mod tensor;
mod waiting;

use pyo3::prelude::*;

/// The native module of ringload.
#[pymodule]
mod _ringload {
    #[pymodule_export]
    use crate::checkpoint::Checkpoint;
    #[pymodule_export]
    use crate::ending::end;
    #[pymodule_export]
    use crate::loader::{Loader, environment_memory_limit};
    #[pymodule_export]
    use crate::stream::Stream;
    #[pymodule_export]
    use crate::tensor::Tensor;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
