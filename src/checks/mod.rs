//! What a load checks of the bytes that it reads, before any tensor is handed out.
//!
//! ```text
//! a read is complete --> parts     CRCs of the parts of files that the load reads: headers, tensors
//!                    \-> digests   SHA-256 of whole files, in the order of their bytes
//! a slot is full     --> finite    NaN and infinity in its tensors
//! ```
//!
//! The engine adds the bytes of each read while the read task owns their memory, and those of a full
//! slot before its tensors are delivered. Memory that a caller may write to is never read.

mod finite;
mod parts;

pub(crate) use finite::{FiniteCheck, NonFinite};
pub(crate) use parts::{Part, PartChecks, PartSink};

use crate::error::Result;
use crate::source::{ChecksumVerifier, OrderedSha256, Stop};
use std::sync::Arc;

/// The checks of one load. By default there are none.
#[derive(Default)]
pub(crate) struct LoadChecks {
    /// The CRCs of parts of the files.
    pub parts: Option<PartChecks>,
    /// The verifiers of whole files, besides those of their sources, by the index of the source.
    pub verifiers: Vec<Option<Arc<ChecksumVerifier>>>,
    /// The digests to compute of whole files, by the index of the source.
    pub digests: Vec<Arc<OrderedSha256>>,
    /// Looks for NaN and infinity in tensors.
    pub finite: Option<Arc<FiniteCheck>>,
}

impl LoadChecks {
    /// The verifier of the file with this index, besides that of its source.
    pub fn verifier(&self, source: usize) -> Option<&Arc<ChecksumVerifier>> {
        self.verifiers.get(source)?.as_ref()
    }

    /// Whether the bytes of the source with this index are taken in their order.
    pub fn in_order(&self, source: usize) -> bool {
        self.verifier(source).is_some() || self.digests.get(source).is_some()
    }

    /// Adds the `bytes` of the source with this index from `offset`, which belong to `list` of the
    /// parts. May wait until the bytes before them were added, or until `stop` is set.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if they complete a part with another checksum than
    /// expected, [`Cancelled`](crate::ErrorKind::Cancelled) when `stop` is set.
    pub async fn add(
        &self,
        (source, list): (usize, usize),
        offset: u64,
        bytes: &[u8],
        stop: &Stop,
    ) -> Result<()> {
        if let Some(parts) = &self.parts {
            parts.add(list, offset, bytes)?;
        }
        if let Some(digest) = self.digests.get(source) {
            digest.add_unless_stopped(offset, bytes, stop).await?;
        }
        match self.verifier(source) {
            Some(verifier) => verifier.add_read(offset, bytes, stop).await,
            None => Ok(()),
        }
    }

    /// Fails if the load, of which all bytes were read, did not pass its checks.
    ///
    /// # Errors
    /// [`NotFinite`](crate::ErrorKind::NotFinite) if tensors hold NaN or infinity.
    pub fn result(&self) -> Result<()> {
        self.parts.as_ref().map_or(Ok(()), PartChecks::result)?;
        self.finite.as_ref().map_or(Ok(()), |finite| finite.result())
    }
}
