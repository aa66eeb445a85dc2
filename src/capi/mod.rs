//! The C library: functions for C and for whatever loads shared libraries.
//!
//! ```text
//! runai    the functions of Run:ai's libstreamer.so, 0.17: for its own Python package    runai_streamer.h
//! native   ringload's own: loads as streams of tensors, ranges into the caller's memory   ringload.h
//! handles  what a C program holds is a number, looked up here; a stale one is an error
//! abi      panics stop here; C texts and arrays
//! ```
//!
//! With the feature `capi` only; `cargo build --release --features capi` makes `libringload.so` of it.
//! The headers lie beside this file and are generated from it (`tests/capi_headers.rs`).

mod abi;
mod handles;
pub mod native;
pub mod runai;

pub use native::*;
pub use runai::*;
