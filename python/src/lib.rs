//! The native module of the Python package: `ringload._ringload`.
//!
//! ```text
//! Loader (options)  --stream-->  Stream  --next-->  Tensor  --__dlpack__-->  torch, jax
//!                   --open---->  Checkpoint  --read-->  Tensor  --array----->  numpy
//! ```
//!
//! Blocking calls release the GIL and check for signals, which cancel them (`interrupts`). In a child process, a
//! loader starts anew, and a stream of the parent raises an error
//! (`ringload::internals::ForkGuard`). The rest of the package is written in Python, in
//! `ringload/*.py`.
//!
//! Unsafe code is confined to `capsule`, which exchanges DLPack structures with the interpreter, and to
//! `borrowed`, which reads the memory of arrays.

mod array;
#[allow(unsafe_code)]
mod borrowed;
#[allow(unsafe_code)]
mod capsule;
mod checkpoint;
mod description;
mod error;
mod interpreter_exit;
mod interrupts;
mod loader;
mod mapped;
mod options;
mod progress;
mod shared_load;
mod slices;
mod stream;
mod tensor;

use pyo3::prelude::*;

/// The native module of ringload.
#[pymodule]
mod _ringload {
    #[pymodule_export]
    use crate::array::Array;
    #[pymodule_export]
    use crate::checkpoint::Checkpoint;
    #[pymodule_export]
    use crate::interpreter_exit::stop_loads;
    #[pymodule_export]
    use crate::loader::{Loader, environment_memory_limit, parsed_memory_limit};
    #[pymodule_export]
    use crate::mapped::Mapped;
    #[pymodule_export]
    use crate::progress::{Progress, ProgressPart};
    #[pymodule_export]
    use crate::stream::Stream;
    #[pymodule_export]
    use crate::tensor::Tensor;
    use pyo3::prelude::*;
    use ringload::internals::Interface;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        Interface::Python.speak();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
