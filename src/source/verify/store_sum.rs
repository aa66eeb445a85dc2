//! The checksums that stores keep of objects.

use super::expected::{Checksum, ExpectedSum};
use crate::checksum::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

impl ExpectedSum {
    /// The checksum that a store keeps of an object.
    pub(in crate::source) fn of_store(checksum: Checksum) -> Self {
        let remedy = "load it again, and if that does not help, upload it again";
        Self { checksum, origin: "its store".into(), remedy, notation }
    }
}

/// The checksum in the notation of the stores: base64 of the big-endian number, or hexadecimal for
/// SHA-256.
fn notation(checksum: &Checksum) -> String {
    match checksum {
        Checksum::Crc64Nvme(crc) => STANDARD.encode(crc.to_be_bytes()),
        Checksum::Crc32c(crc) | Checksum::Crc32(crc) => STANDARD.encode(crc.to_be_bytes()),
        Checksum::Sha256(digest) => hex::encode(digest),
    }
}
