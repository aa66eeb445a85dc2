//! Checksums of bytes that arrive in any order.
//!
//! ```text
//! crc      CRCs, and the CRC of concatenated ranges from the CRCs of the parts
//! spans    the CRC of a whole whose ranges arrive in any order
//! hex      checksums as hexadecimal digits
//! sha256   SHA-256, if the build has it
//! ```

mod crc;
pub(crate) mod hex;
#[cfg_attr(not(feature = "sha256"), path = "sha256_left_out.rs")]
mod sha256;
mod spans;

pub(crate) use crc::Crc;
pub use crc::{crc64_nvme, crc64_nvme_of_parts};
pub(crate) use sha256::Sha256;
pub(crate) use spans::CrcSpans;
