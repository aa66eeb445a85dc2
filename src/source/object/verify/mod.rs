//! Checking the bytes of a whole object against the checksum that its store keeps of it.
//!
//! ```text
//! opening:   read_exact_at --bytes--> Check of the opened object: its header
//!                                        | again()
//! a load:    receive --pieces--> Part    v
//!                                 \--> Check of the load: the header and what the load has read
//! ```
//!
//! Coverage is per load, on top of the header that was read at opening: every load that is told to
//! verify has checked all the bytes that it gave out, also the second load of one open checkpoint
//! and one that runs beside another. Within a load a byte that came twice counts once.
//!
//! The sum is compared by whoever brings the last missing byte, before that read counts as done: a
//! load of damaged bytes never comes to its end.

mod crc;
mod sha;

use crate::checksum::Crc;
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::source::store::Checksum;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc::Spans;
use crc_fast::Digest;
use sha::InOrder;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The bytes of one object that were seen, and what their checksum has to be.
pub struct Check {
    location: Location,
    len_bytes: u64,
    expected: Checksum,
    covered: Covered,
    right: AtomicBool,
}

/// How bytes are summed up.
enum Covered {
    /// In any order.
    Crc(Crc, Mutex<Spans>),
    /// From the first one to the last one.
    Sha(InOrder),
}

/// What is summed up of a range while it comes, if anything is.
#[derive(Clone, Default)]
pub(super) struct Part(Option<Digest>);

impl Part {
    /// Takes in the next bytes of the range.
    pub fn update(&mut self, piece: &[u8]) {
        if let Some(digest) = &mut self.0 {
            digest.update(piece);
        }
    }
}

impl Check {
    /// Nothing seen yet of the object of `len_bytes` at `location`.
    pub(super) fn new(location: Location, len_bytes: u64, expected: Checksum) -> Self {
        let spans = |crc| Covered::Crc(crc, Mutex::new(Spans::new(crc)));
        let covered = match expected {
            Checksum::Crc64Nvme(_) => spans(Crc::CRC64_NVME),
            Checksum::Crc32c(_) => spans(Crc::CRC32C),
            Checksum::Crc32(_) => spans(Crc::CRC32),
            Checksum::Sha256(_) => Covered::Sha(InOrder::default()),
        };
        Self { location, len_bytes, expected, covered, right: AtomicBool::new(false) }
    }

    /// The check of one more load, which has seen what this one has.
    pub(super) fn again(&self) -> Arc<Self> {
        let covered = match &self.covered {
            Covered::Crc(crc, spans) => {
                let spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
                Covered::Crc(*crc, Mutex::new(spans.clone()))
            }
            Covered::Sha(in_order) => Covered::Sha(in_order.clone()),
        };
        Arc::new(Self {
            location: self.location.clone(),
            covered,
            right: AtomicBool::new(self.is_right()),
            ..*self
        })
    }

    /// Whether all bytes were seen, and their checksum is the store's.
    pub(crate) fn is_right(&self) -> bool {
        self.right.load(Ordering::Acquire)
    }

    /// To be updated with the pieces of a range as they come.
    pub(super) fn part(&self) -> Part {
        match &self.covered {
            Covered::Crc(crc, _) => Part(Some(Digest::new(crc.algorithm))),
            Covered::Sha(_) => Part(None),
        }
    }

    /// Takes in `bytes`, which stand at `offset`; those seen already are passed over, as are those
    /// that a sum in order cannot take yet.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) when these were the last ones missing, and the sum is wrong.
    pub(super) fn saw(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match &self.covered {
            Covered::Crc(..) => {
                let mut part = self.part();
                part.update(bytes);
                self.add_crc(offset, bytes.len() as u64, &part)
            }
            Covered::Sha(in_order) => {
                in_order.try_take(offset, bytes);
                self.compare_sha(in_order)
            }
        }
    }

    /// Takes in a range that has come whole: `bytes`, of which `part` has seen every one, from
    /// `offset`. Waits for the bytes before them where the sum wants that; every range before this
    /// one must have been begun by someone who does not wait for this one.
    ///
    /// # Errors
    /// As [`saw`](Self::saw).
    pub(super) async fn saw_range(&self, offset: u64, bytes: &[u8], part: &Part) -> Result<()> {
        match &self.covered {
            Covered::Crc(..) => self.add_crc(offset, bytes.len() as u64, part),
            Covered::Sha(in_order) => {
                in_order.take(offset, bytes).await;
                self.compare_sha(in_order)
            }
        }
    }

    fn add_crc(&self, offset: u64, len: u64, part: &Part) -> Result<()> {
        let (Covered::Crc(_, spans), Some(digest)) = (&self.covered, &part.0) else {
            return Ok(());
        };
        let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.add(offset, len, digest.finalize());
        match spans.of_all(self.len_bytes) {
            Some(crc) => self.compare(self.expected.with_crc(crc)),
            None => Ok(()),
        }
    }

    fn compare_sha(&self, in_order: &InOrder) -> Result<()> {
        match in_order.of_all(self.len_bytes) {
            Some(digest) => self.compare(Checksum::Sha256(digest)),
            None => Ok(()),
        }
    }

    fn compare(&self, seen: Checksum) -> Result<()> {
        if seen == self.expected {
            self.right.store(true, Ordering::Release);
            return Ok(());
        }
        let sentence = format!(
            "{} is corrupt: its bytes have the {} {}, but its store keeps {} of it; load it again, \
             and where that does not help upload it again",
            self.location,
            seen.algorithm(),
            seen.text(),
            self.expected.text()
        );
        Err(Error::new(ErrorKind::Corrupt, sentence))
    }

    /// The error of a load that gave everything out without having seen every byte.
    pub(crate) fn unseen(&self) -> Error {
        let sentence = format!(
            "{} could not be verified: not all of its bytes were read; this is a bug",
            self.location
        );
        Error::new(ErrorKind::Corrupt, sentence)
    }
}

impl Checksum {
    /// What it is called.
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Crc64Nvme(_) => "CRC64NVME",
            Self::Crc32c(_) => "CRC32C",
            Self::Crc32(_) => "CRC32",
            Self::Sha256(_) => "SHA-256",
        }
    }

    /// As the stores write it: base64 of the big-endian number, or hexadecimal digits of SHA-256.
    fn text(&self) -> String {
        match self {
            Self::Crc64Nvme(crc) => STANDARD.encode(crc.to_be_bytes()),
            Self::Crc32c(crc) | Self::Crc32(crc) => STANDARD.encode(crc.to_be_bytes()),
            Self::Sha256(digest) => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// `crc` as a checksum of this kind.
    fn with_crc(self, crc: u64) -> Self {
        match self {
            Self::Crc64Nvme(_) => Self::Crc64Nvme(crc),
            // What crc-fast gives for these has 32 bits.
            Self::Crc32c(_) => Self::Crc32c(crc as u32),
            Self::Crc32(_) => Self::Crc32(crc as u32),
            Self::Sha256(_) => self,
        }
    }
}

#[cfg(test)]
mod tests;
