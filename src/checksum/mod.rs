//! Checksums of bytes that arrive in any order.
//!
//! ```text
//! crc      CRCs, and the CRC of concatenated ranges from the CRCs of the parts
//! spans    the CRC of a whole whose ranges arrive in any order
//! hex      checksums as hexadecimal digits
//! ```

mod crc;
pub(crate) mod hex;
mod spans;

pub(crate) use crc::Crc;
pub use crc::{crc64_nvme, crc64_nvme_of_parts};
pub(crate) use spans::CrcSpans;
