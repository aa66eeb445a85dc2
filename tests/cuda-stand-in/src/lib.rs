//! Stands in for the CUDA driver and for cuFile, so that the whole way to a GPU is tested where
//! there is none. The library is put into the loader's path as `libcuda.so` and `libcufile.so`, and
//! the code under test runs against it unchanged.
//!
//! ```text
//! calls (context, memory, host, copy, streams, event, module, launch, pointer, device, files)
//!   call      log, ordered failure, current context, error left by failed work
//!   state     one lock: contexts and what is theirs
//!   stream    queues -> worker, one thread a stream -> work
//!   trace     what work uses until its end is known
//!   pace      when an operation begins, drawn from the seed
//!   alarm     wrong use: one line, and the process ends
//! ```
//! What it is for: device memory is host memory, poisoned; copies happen late and out of step with
//! the caller; what a caller may not do rings an alarm, also where it would have gone well this
//! time. What the environment may order, and all alarms, are in the README.

#![allow(non_snake_case, reason = "the functions are called as the driver's are")]
#![allow(clippy::missing_safety_doc, reason = "the driver's documentation is the contract")]

#[macro_use]
mod alarm;

mod call;
mod context;
mod copy;
mod device;
mod event;
mod file;
mod files;
mod host;
mod launch;
mod leaks;
mod mapping;
mod memory;
mod module;
mod orders;
mod pace;
mod pointer;
mod random;
mod result;
mod state;
mod stream;
mod streams;
mod trace;
mod work;
mod worker;

pub use context::*;
pub use copy::*;
pub use device::*;
pub use event::*;
pub use file::CUfileError;
pub use files::*;
pub use host::*;
pub use launch::*;
pub use memory::*;
pub use module::*;
pub use pointer::*;
pub use result::*;
pub use streams::*;
