//! A stand-in for the CUDA driver and for cuFile, which tests the complete path to a GPU on
//! machines without one. The library is found in the library path as `libcuda.so` and
//! `libcufile.so`, and the code under test runs against it unchanged.
//!
//! ```text
//! calls (context, memory, host, copy, streams, event, module, launch, pointer, device, files)
//!   call      log, injected failure, current context, error of failed work
//!   state     one lock: contexts and their objects
//!   stream    queues -> worker, one thread a stream -> work
//!   trace     the memory that work uses until it is known to be complete
//!   delays    when an operation begins, drawn from the seed
//!   alarm     incorrect use: prints one line and aborts the process
//! ```
//!
//! Device memory is poisoned host memory. Copies run late and out of step with the caller.
//! Incorrect use raises an alarm, even if it would have had no consequence this time. The README
//! lists the environment variables and all alarms.

#![allow(non_snake_case, reason = "the functions are called as the driver's are")]
#![allow(clippy::missing_safety_doc, reason = "the driver's documentation is the contract")]

#[macro_use]
mod alarm;

mod call;
mod context;
mod copy;
mod delays;
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
