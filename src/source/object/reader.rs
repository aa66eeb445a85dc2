//! An engine's reader of an object.

use super::body_writer::BodyWriter;
use super::read::Answer;
use super::remote_object::{Object, ReadContext, RequestedRange};
use crate::error::Result;
use crate::ring::Window;
use crate::source::traits::{Access, Attempt, RangeAnswer, ReadFuture, Reader, RequestFuture, Via};
use crate::source::verify::ChecksumVerifier;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

pub(super) struct ObjectReader {
    object: Arc<Object>,
    /// All bytes of a small object, which came with the response that opened it.
    whole: Option<Bytes>,
    access: Access,
}

impl ObjectReader {
    pub fn new(object: Arc<Object>, whole: Option<Bytes>, access: &Access) -> Self {
        Self { object, whole, access: access.clone() }
    }

    /// Fills the window, with retries. Ends early when the load is stopped.
    async fn fill(
        &self,
        window: Window,
        offset: u64,
        answer: Option<Answer>,
    ) -> (Result<usize>, Window) {
        let left = self.object.identity.len_bytes.saturating_sub(offset);
        let len = left.min(window.unfilled_len() as u64) as usize;
        let Access { backend: sockets, counters, stop, verifier, .. } = &self.access;
        let context = ReadContext { sockets, counters, stop };
        let digest = verifier.as_deref().map(ChecksumVerifier::digest).unwrap_or_default();
        let mut writer = BodyWriter::new(window, len, digest);
        let outcome;
        (outcome, writer) = match &self.whole {
            Some(bytes) => {
                let from = bytes.len().min(offset as usize);
                writer.next(len).copy_from_slice(&bytes[from..from + len]);
                writer.advance(len);
                (Ok(()), writer)
            }
            None => self.object.read(&context, offset, writer, answer).await,
        };
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

impl ObjectReader {
    async fn attempt(
        &self,
        window: Window,
        offset: u64,
        answer: Option<Answer>,
    ) -> (io::Result<Attempt>, Window) {
        let (outcome, window) = self.fill(window, offset, answer).await;
        let outcome = outcome.map(|bytes| Attempt { bytes, via: Via::Http });
        (outcome.map_err(io::Error::other), window)
    }
}

impl Reader for ObjectReader {
    fn request(&self, offset: u64, len: usize) -> Option<RequestFuture<'_>> {
        if self.whole.is_some() {
            return None;
        }
        Some(Box::pin(async move {
            let Access { backend: sockets, counters, stop, .. } = &self.access;
            let context = ReadContext { sockets, counters, stop };
            let range = RequestedRange { offset, len: len as u64 };
            let answer = self.object.request_range(&context, range).await?;
            Ok(Box::new(answer) as Box<dyn RangeAnswer>)
        }))
    }

    fn read_answer(
        &self,
        answer: Box<dyn RangeAnswer>,
        window: Window,
        offset: u64,
    ) -> ReadFuture<'_> {
        // This reader makes no other answers.
        let answer = answer.into_any().downcast::<Answer>().ok();
        Box::pin(self.attempt(window, offset, answer.map(|answer| *answer)))
    }

    fn read_at(&self, window: Window, offset: u64) -> ReadFuture<'_> {
        Box::pin(self.attempt(window, offset, None))
    }
}
