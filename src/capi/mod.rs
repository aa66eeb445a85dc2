//! The C library: functions for C, and for programs that load shared libraries.
//!
//! ```text
//! runai    the functions of Run:ai's libstreamer.so 0.17, for its own Python package    runai_streamer.h
//! native   ringload's own functions: streams of tensors, ranges into caller's memory    ringload.h
//! handles  the values behind the handles that a C program holds
//! abi      conversion of C texts and arrays; stops panics
//! ```
//!
//! This module needs the feature `capi`. `cargo build --release --features capi` builds
//! `libringload.so`. The headers are in this directory and are generated from the sources
//! (`tests/integration/capi_headers.rs`).

mod abi;
mod handles;
pub mod native;
pub mod runai;

pub use native::*;
pub use runai::*;
