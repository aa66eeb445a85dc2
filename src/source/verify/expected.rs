//! A checksum that bytes are compared with, and its origin.

use crate::checksum::hex;
use std::sync::Arc;

/// The checksum of a whole file or object, and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedSum {
    pub(in crate::source) checksum: Checksum,
    /// Where the checksum was found, for messages: `its store`, `/models/SHA256SUMS`.
    pub(in crate::source) origin: Arc<str>,
    /// What to do about other bytes.
    pub(in crate::source) remedy: &'static str,
    /// Writes a checksum as its origin does.
    pub(in crate::source) notation: fn(&Checksum) -> String,
}

impl ExpectedSum {
    /// The SHA-256 of a file or object that `origin` has.
    pub(crate) fn sha256(digest: [u8; 32], origin: impl Into<Arc<str>>) -> Self {
        Self::in_hexadecimal(Checksum::Sha256(digest), origin.into())
    }

    /// The CRC-64/NVME of a file or object that `origin` has.
    pub(crate) fn crc64_nvme(crc: u64, origin: impl Into<Arc<str>>) -> Self {
        Self::in_hexadecimal(Checksum::Crc64Nvme(crc), origin.into())
    }

    fn in_hexadecimal(checksum: Checksum, origin: Arc<str>) -> Self {
        let remedy = "load it again, and if that does not help, replace the file";
        let notation = |checksum: &Checksum| match checksum {
            Checksum::Sha256(digest) => hex::encode(digest),
            Checksum::Crc64Nvme(crc) => format!("{crc:016x}"),
            Checksum::Crc32c(crc) | Checksum::Crc32(crc) => format!("{crc:08x}"),
        };
        Self { checksum, origin, remedy, notation }
    }

    /// What the bytes are compared with, for the summary: `SHA-256 of /models/SHA256SUMS`.
    pub(in crate::source) fn against(&self) -> String {
        format!("{} of {}", self.checksum.algorithm(), self.origin)
    }
}

/// A checksum of a whole object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// CRC-64/NVME.
    Crc64Nvme(u64),
    /// CRC-32C (Castagnoli, as in iSCSI).
    Crc32c(u32),
    /// CRC-32 (ISO-HDLC, as in zlib).
    Crc32(u32),
    /// SHA-256.
    Sha256([u8; 32]),
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
