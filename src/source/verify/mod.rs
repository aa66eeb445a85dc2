//! Compares the bytes of a whole file or object with a checksum: the one that its store keeps, or one
//! that was found beside a local file (`local_sums`) or in a manifest.
//!
//! ```text
//! opening:   read_exact_at --bytes--> verifier of the opened object: its header
//!                                        | for_load()
//! a load:    receive --> RangeDigest     v
//!                                 \--> verifier of the load: the header and the ranges read
//! ```
//!
//! For an object, the reader adds the ranges as they arrive. The ranges of a local file are added by the
//! engine, once each is read.
//!
//! Each load has a verifier of its own, which has seen the header that was read at opening. So
//! every verifying load checks all bytes that it returns, also the second load of an open
//! checkpoint and loads that run at the same time. Within a load, a byte that is read twice counts
//! once.
//!
//! The read of the last missing byte compares the checksum before it completes, so a load of
//! damaged bytes never completes.

mod expected;
pub(in crate::source) mod local_sums;
mod sha;
#[cfg(feature = "http")]
mod store_sum;
mod verifier;

pub(crate) use expected::{Checksum, ExpectedSum};
pub(crate) use sha::OrderedSha256;
pub(in crate::source) use verifier::RangeDigest;
pub use verifier::{ChecksumVerifier, Verified};
