//! `libringload.so`: the functions of `ringload::capi`, as a shared library.
//!
//! This is a separate package for two reasons: a package that depends on a package with a shared
//! library would link that library too, and cargo keeps builds with different features apart only
//! for packages without one.

#[cfg(feature = "capi")]
pub use ringload::capi::*;
