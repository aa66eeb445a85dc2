//! Compares the bytes of a whole object with the checksum that its store keeps.
//!
//! ```text
//! opening:   read_exact_at --bytes--> verifier of the opened object: its header
//!                                        | for_load()
//! a load:    receive --> RangeDigest     v
//!                                 \--> verifier of the load: the header and the ranges read
//! ```
//!
//! Each load has a verifier of its own, which has seen the header that was read at opening. So
//! every verifying load checks all bytes that it returns, also the second load of an open
//! checkpoint and loads that run at the same time. Within a load, a byte that is read twice counts
//! once.
//!
//! The read of the last missing byte compares the checksum before it completes, so a load of
//! damaged bytes never completes.

mod crc;
mod sha;
mod verifier;

pub use verifier::ChecksumVerifier;
pub(in crate::source) use verifier::RangeDigest;
