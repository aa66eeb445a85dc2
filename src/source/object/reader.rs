//! An engine's reader of an object.

use super::body_writer::BodyWriter;
use super::remote_object::{Object, ReadContext};
use crate::error::Result;
use crate::ring::Window;
use crate::source::traits::{Access, Attempt, ReadFuture, Reader, Via};
use crate::source::verify::ChecksumVerifier;
use std::io;
use std::sync::Arc;

pub(super) struct ObjectReader {
    object: Arc<Object>,
    access: Access,
}

impl ObjectReader {
    pub fn new(object: Arc<Object>, access: &Access) -> Self {
        Self { object, access: access.clone() }
    }

    /// Fills the window, with retries. Ends early when the load is stopped.
    async fn fill(&self, window: Window, offset: u64) -> (Result<usize>, Window) {
        let left = self.object.identity.len_bytes.saturating_sub(offset);
        let len = left.min(window.unfilled_len() as u64) as usize;
        let Access { backend: sockets, pool, counters, stop, verifier, .. } = &self.access;
        let context = ReadContext { sockets, pool, counters, stop };
        let digest = verifier.as_deref().map(ChecksumVerifier::digest).unwrap_or_default();
        let writer = BodyWriter::new(window, len, digest);
        let (outcome, writer) = self.object.read(&context, offset, writer).await;
        let (mut window, digest) = writer.into_parts();
        let outcome = match (outcome, verifier) {
            (Ok(()), Some(verifier)) => {
                let bytes = &window.unfilled_mut()[..len];
                // This may wait for other ranges. The read holds no permit or connection any more.
                context.unless_stopped(verifier.add_range(offset, bytes, &digest)).await.flatten()
            }
            (outcome, _) => outcome,
        };
        (outcome.map(|()| len), window)
    }
}

impl Reader for ObjectReader {
    fn read_at(&self, window: Window, offset: u64) -> ReadFuture<'_> {
        Box::pin(async move {
            let (outcome, window) = self.fill(window, offset).await;
            let outcome = outcome.map(|bytes| Attempt { bytes, via: Via::Http });
            (outcome.map_err(io::Error::other), window)
        })
    }
}
