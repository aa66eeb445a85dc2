//! The verifier of a file or object in one load.

use super::expected::{Checksum, ExpectedSum};
use super::sha::OrderedSha256;
use crate::checksum::{Crc, CrcSpans};
use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, LocationText};
use crate::source::stop::Stop;
use crate::sync::Mutex;
use crc_fast::Digest;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tracks which bytes of a file or object were read in one load. When all have been read, compares their
/// checksum with the expected one.
pub struct ChecksumVerifier {
    location: Location,
    len_bytes: u64,
    expected: ExpectedSum,
    covered: Covered,
    verified: AtomicBool,
    corrupt: AtomicBool,
    /// Whether nothing but the checksum tells the object from a replacement.
    is_needed: bool,
}

/// A file or object that matched a checksum of all of it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Verified {
    /// Where the bytes are.
    pub location: LocationText,
    /// What they were compared with: `SHA-256 of /models/SHA256SUMS`, `CRC64NVME of its store`.
    pub against: String,
}

/// The checksum of the bytes seen so far.
enum Covered {
    /// A CRC takes ranges in any order.
    Crc(Crc, Mutex<CrcSpans>),
    /// SHA-256 takes ranges in ascending order.
    Sha(OrderedSha256),
}

/// The CRC of a range while it arrives, if the object is verified by a CRC.
#[derive(Clone, Default)]
pub(crate) struct RangeDigest(Option<Digest>);

impl RangeDigest {
    /// Adds the next bytes of the range.
    pub fn update(&mut self, piece: &[u8]) {
        if let Some(digest) = &mut self.0 {
            digest.update(piece);
        }
    }
}

impl ChecksumVerifier {
    /// A verifier of the object of `len_bytes` at `location`, which has seen no bytes.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a SHA-256 in a build without it.
    pub(crate) fn new(location: Location, len_bytes: u64, expected: ExpectedSum) -> Result<Self> {
        let spans = |crc| Covered::Crc(crc, Mutex::new(CrcSpans::new(crc)));
        let covered = match expected.checksum {
            Checksum::Crc64Nvme(_) => spans(Crc::CRC64_NVME),
            Checksum::Crc32c(_) => spans(Crc::CRC32C),
            Checksum::Crc32(_) => spans(Crc::CRC32),
            Checksum::Sha256(_) => Covered::Sha(OrderedSha256::new()?),
        };
        Ok(Self {
            location,
            len_bytes,
            expected,
            covered,
            verified: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            is_needed: false,
        })
    }

    /// The verifier of a load, which has seen the same bytes as this one.
    pub(in crate::source) fn for_load(&self) -> Arc<Self> {
        let covered = match &self.covered {
            Covered::Crc(crc, spans) => Covered::Crc(*crc, Mutex::new(spans.lock().clone())),
            Covered::Sha(sha) => Covered::Sha(sha.clone()),
        };
        Arc::new(Self {
            location: self.location.clone(),
            expected: self.expected.clone(),
            covered,
            verified: AtomicBool::new(self.is_verified()),
            corrupt: AtomicBool::new(self.is_corrupt()),
            ..*self
        })
    }

    /// This verifier for an object that has nothing else to tell it from a replacement. Loads of the
    /// whole object are verified even if that was not asked for.
    pub(in crate::source) fn needed(self) -> Self {
        Self { is_needed: true, ..self }
    }

    /// Whether nothing but the checksum tells the object from a replacement.
    pub(crate) fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// What the bytes were compared with, if they matched.
    pub(crate) fn verified(&self) -> Option<Verified> {
        let location = || LocationText::from(&self.location);
        self.is_verified()
            .then(|| Verified { location: location(), against: self.expected.against() })
    }

    /// Whether all bytes were seen and have the expected checksum.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Acquire)
    }

    /// Whether all bytes were seen and have another checksum.
    pub(crate) fn is_corrupt(&self) -> bool {
        self.corrupt.load(Ordering::Acquire)
    }

    /// A digest for a range, to which its bytes are added as they arrive.
    pub(crate) fn digest(&self) -> RangeDigest {
        match &self.covered {
            Covered::Crc(crc, _) => RangeDigest(Some(Digest::new(crc.algorithm))),
            Covered::Sha(_) => RangeDigest(None),
        }
    }

    /// Adds the `bytes` at `offset`. Ignores bytes that were seen before and, for SHA-256, bytes beyond
    /// a gap.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if these were the last missing bytes and the checksum differs.
    pub(crate) fn add(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut digest = self.digest();
        digest.update(bytes);
        if let Covered::Sha(sha) = &self.covered {
            sha.try_add(offset, bytes);
        }
        self.added(offset, bytes.len() as u64, &digest)
    }

    /// Adds a range that has arrived whole: the `bytes` at `offset`, of which `digest` has seen
    /// all. For SHA-256, waits until the bytes before the range were added. The reads of those
    /// bytes must have begun and must not wait for this one.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) async fn add_range(
        &self,
        offset: u64,
        bytes: &[u8],
        digest: &RangeDigest,
    ) -> Result<()> {
        if let Covered::Sha(sha) = &self.covered {
            sha.add(offset, bytes).await;
        }
        self.added(offset, bytes.len() as u64, digest)
    }

    /// As [`add_range`](Self::add_range), for a range of which no digest was made while it arrived, and
    /// until `stop` is set.
    ///
    /// # Errors
    /// As [`add`](Self::add); [`Cancelled`](ErrorKind::Cancelled) when `stop` is set.
    pub(crate) async fn add_read(&self, offset: u64, bytes: &[u8], stop: &Stop) -> Result<()> {
        let mut digest = self.digest();
        digest.update(bytes);
        stop.unless_stopped(self.add_range(offset, bytes, &digest)).await?
    }

    /// Adds the CRC of a range, if the object is verified by one, and compares the checksum if no
    /// bytes are missing.
    fn added(&self, offset: u64, len: u64, digest: &RangeDigest) -> Result<()> {
        let seen = match (&self.covered, &digest.0) {
            (Covered::Crc(_, spans), Some(digest)) => {
                let mut spans = spans.lock();
                spans.add(offset, len, digest.finalize());
                spans.complete(self.len_bytes).map(|crc| self.expected.checksum.with_crc(crc))
            }
            (Covered::Sha(sha), _) => sha.complete(self.len_bytes).map(Checksum::Sha256),
            (Covered::Crc(..), None) => None,
        };
        let Some(seen) = seen else { return Ok(()) };
        let ExpectedSum { checksum, origin, remedy, notation } = &self.expected;
        if seen == *checksum {
            self.verified.store(true, Ordering::Release);
            return Ok(());
        }
        self.corrupt.store(true, Ordering::Release);
        let sentence = format!(
            "{} is corrupt: the {} of its bytes is {}, but {origin} has {}; {remedy}",
            self.location,
            seen.algorithm(),
            notation(&seen),
            notation(checksum)
        );
        Err(Error::new(ErrorKind::Corrupt, sentence))
    }

    /// The error of a load that completed without reading every byte.
    pub(crate) fn incomplete_error(&self) -> Error {
        let sentence = format!(
            "{} could not be verified: not all of its bytes were read; this is a bug",
            self.location
        );
        Error::new(ErrorKind::Corrupt, sentence)
    }
}

impl fmt::Debug for ChecksumVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChecksumVerifier").field(&self.expected).finish()
    }
}

#[cfg(test)]
#[cfg(feature = "http")]
mod tests;
