//! SHA-256, by AWS-LC.
//!
//! A build without the feature `sha256` has `sha256_left_out` in this module's place.

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256 that is being computed.
#[derive(Clone)]
pub(crate) struct Sha256(Context);

impl Sha256 {
    /// The digest of no bytes so far; `None` in a build without SHA-256.
    pub fn new() -> Option<Self> {
        Some(Self(Context::new(&SHA256)))
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}
