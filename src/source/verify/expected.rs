//! A checksum that bytes are compared with, and its origin.

use crate::checksum::hex;
use crate::source::store::Checksum;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

/// The checksum of a whole file or object, and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedSum {
    pub(in crate::source) checksum: Checksum,
    /// Where the checksum was found, for messages: `its store`, `/models/SHA256SUMS`.
    pub(in crate::source) origin: Arc<str>,
    /// What to do about other bytes.
    pub(in crate::source) remedy: &'static str,
}

impl ExpectedSum {
    /// The checksum that a store keeps of an object.
    pub(in crate::source) fn of_store(checksum: Checksum) -> Self {
        let remedy = "load it again, and if that does not help, upload it again";
        Self { checksum, origin: "its store".into(), remedy }
    }

    /// The SHA-256 of a file or object that `origin` has.
    pub(crate) fn sha256(digest: [u8; 32], origin: impl Into<Arc<str>>) -> Self {
        let remedy = "load it again, and if that does not help, replace the file";
        Self { checksum: Checksum::Sha256(digest), origin: origin.into(), remedy }
    }

    /// What the bytes are compared with, for the summary: `SHA-256 of /models/SHA256SUMS`.
    pub(in crate::source) fn against(&self) -> String {
        format!("{} of {}", self.checksum.algorithm(), self.origin)
    }
}

impl Checksum {
    /// The name of the algorithm.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Crc64Nvme(_) => "CRC64NVME",
            Self::Crc32c(_) => "CRC32C",
            Self::Crc32(_) => "CRC32",
            Self::Sha256(_) => "SHA-256",
        }
    }

    /// The checksum in the notation of the stores: base64 of the big-endian number, or hexadecimal
    /// for SHA-256.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Crc64Nvme(crc) => STANDARD.encode(crc.to_be_bytes()),
            Self::Crc32c(crc) | Self::Crc32(crc) => STANDARD.encode(crc.to_be_bytes()),
            Self::Sha256(digest) => hex::encode(digest),
        }
    }

    /// `crc` as a checksum of this kind.
    pub(super) fn with_crc(self, crc: u64) -> Self {
        match self {
            Self::Crc64Nvme(_) => Self::Crc64Nvme(crc),
            // crc-fast returns 32 bits for these.
            Self::Crc32c(_) => Self::Crc32c(crc as u32),
            Self::Crc32(_) => Self::Crc32(crc as u32),
            Self::Sha256(_) => self,
        }
    }
}
