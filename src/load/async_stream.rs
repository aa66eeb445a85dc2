//! The stream of tensors for async code.

use super::stream::TensorStream;
use super::summary::Summary;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::source::Progress;
use crate::tensor::Tensor;
use crate::timeline::Timeline;
use futures_core::Stream;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The tensors of a load, for async code on any executor: by [`next`](Self::next), or as a `futures`
/// `Stream`.
///
/// ```no_run
/// # async fn run() -> ringload::Result<()> {
/// let mut stream = ringload::Loader::new().stream_async("s3://bucket/llama-8b/").await?;
/// while let Some(tensor) = stream.next().await {
///     let tensor = tensor?;
///     println!("{}: {} bytes", tensor.name(), tensor.bytes().len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// The stream ends after an error. Dropping it cancels the load without waiting for it: another thread
/// waits until no read is in flight, and returns the memory then. Tensors that were already yielded stay
/// valid.
pub struct AsyncTensorStream {
    stream: TensorStream,
}

impl TensorStream {
    /// This stream, for async code.
    pub fn into_async(mut self) -> AsyncTensorStream {
        self.wait_at_end(false);
        AsyncTensorStream { stream: self }
    }
}

impl AsyncTensorStream {
    /// The next tensor, as soon as one is loaded. A future that is dropped loses no tensor.
    ///
    /// # Errors
    /// Those of the load, after which the stream ends.
    pub async fn next(&mut self) -> Option<Result<Tensor>> {
        poll_fn(|cx| self.stream.poll_tensor(cx)).await
    }

    /// This stream, for blocking code: dropping it waits until no read is in flight.
    pub fn into_blocking(mut self) -> TensorStream {
        self.stream.wait_at_end(true);
        self.stream
    }

    /// A tensor that is loaded and can be yielded at once, if there is one.
    pub fn at_hand(&mut self) -> Option<Tensor> {
        self.stream.at_hand()
    }

    /// The checkpoint that is being loaded.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        self.stream.checkpoint()
    }

    /// How many tensors the load has in all.
    pub fn tensor_count(&self) -> usize {
        self.stream.tensor_count()
    }

    /// The handle that shows the load's progress: that of the [loader](crate::Loader::progress), or one
    /// of this load alone.
    pub fn progress(&self) -> Progress {
        self.stream.progress()
    }

    /// The statistics of the load so far, which are final once the stream has ended.
    pub fn summary(&self) -> Summary {
        self.stream.summary()
    }

    /// How the load's memory was used so far, and when. `None` unless a timeline was
    /// [requested](crate::Loader::timeline).
    pub fn timeline(&self) -> Option<Timeline> {
        self.stream.timeline()
    }
}

impl Stream for AsyncTensorStream {
    type Item = Result<Tensor>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().stream.poll_tensor(cx)
    }
}

impl fmt::Debug for AsyncTensorStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}
