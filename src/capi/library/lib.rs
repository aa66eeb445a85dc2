//! `libringload.so`: the functions of `ringload::capi`, as a shared library.
//!
//! A package of its own, since whoever depends on a package with a shared library links that, too,
//! and since cargo tells apart what it builds with other features only where there is none.

#[cfg(feature = "capi")]
pub use ringload::capi::*;
