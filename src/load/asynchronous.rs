//! The async forms of the loader's calls, for any executor.
//!
//! Each runs the blocking form on a thread of its own and wakes its caller when that has ended. A
//! future that is dropped cancels its call and does not wait for it: the thread waits until no read is
//! in flight, and frees what the call had so far. Nothing is borrowed from the caller, so the memory
//! that reads write to stays allocated until then, whatever the caller drops or forgets.

use super::async_stream::AsyncTensorStream;
#[cfg(feature = "http")]
use super::download::Downloaded;
use super::listing::Listed;
use super::loaded::Loaded;
use super::loader::Loader;
use super::read_request::ReadRequest;
use super::summary::Summary;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::location::{IntoLocations, Location};
use crate::plan::Pick;
use crate::source::Cancellation;
use crate::sys::on_own_thread;
use crate::tensor::Tensor;
use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
#[cfg(feature = "http")]
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A range of a location, and the buffer to read it into, which
/// [`read_into_async`](Loader::read_into_async) gives back.
///
/// ```no_run
/// # async fn run() -> ringload::Result<()> {
/// use ringload::{Loader, Location, OwnedReadRequest};
///
/// let from = Location::parse("s3://bucket/llama-8b/model.safetensors")?;
/// let request = OwnedReadRequest::new(from, 4096, vec![0; 1 << 20]);
/// let (buffers, outcome) = Loader::new().read_into_async(vec![request]).await?;
/// outcome?;
/// println!("{:?}", &buffers[0][..8]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OwnedReadRequest<B> {
    /// The location to read.
    pub location: Location,
    /// The offset of the first byte to read.
    pub offset_bytes: u64,
    /// The memory to fill: its length is that of the range.
    pub into: B,
}

impl<B: AsMut<[u8]> + Send + 'static> OwnedReadRequest<B> {
    /// Requests as many bytes of `location` from `offset_bytes` as `into` is long. Memory whose address
    /// is congruent to the offset modulo 4096 can be read into directly.
    pub fn new(location: impl Into<Location>, offset_bytes: u64, into: B) -> Self {
        Self { location: location.into(), offset_bytes, into }
    }
}

/// A call that runs while this future is polled or kept. It begins when it is polled first. Dropping it
/// cancels the call without waiting for it.
///
/// ```no_run
/// # async fn run() -> ringload::Result<()> {
/// let loading = ringload::Loader::new().load_async("s3://bucket/llama-8b/");
/// let model = loading.await?; // in a `select!`, the load ends when another branch is first
/// println!("{} tensors", model.len());
/// # Ok(())
/// # }
/// ```
#[must_use = "a future does nothing unless it is polled"]
pub struct AsyncCall<T>(Pin<Box<dyn Future<Output = Result<T>> + Send>>);

impl<T> Future for AsyncCall<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for AsyncCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsyncCall")
    }
}

/// Cancels a call when it is dropped, unless the call has ended.
struct CancelOnDrop(Option<Cancellation>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancellation) = self.0.take() {
            cancellation.cancel();
        }
    }
}

impl Loader {
    /// As [`open`](Self::open), without blocking. Dropping the future cancels the call; any executor
    /// can run it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_async(&self, locations: impl IntoLocations) -> AsyncCall<Checkpoint> {
        let locations = locations.into_locations();
        self.call(move |loader| loader.open(locations?))
    }

    /// As [`load`](Self::load), without blocking. Dropping the future cancels the load without waiting
    /// for it; any executor can run it.
    ///
    /// ```no_run
    /// # async fn start() -> ringload::Result<()> {
    /// use ringload::Loader;
    ///
    /// let model = Loader::new().load_async("s3://bucket/llama-8b/").await?;
    /// println!("{} tensors", model.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_async(&self, locations: impl IntoLocations) -> AsyncCall<Loaded> {
        let locations = locations.into_locations();
        self.call(move |loader| loader.load(locations?))
    }

    /// As [`load_checkpoint`](Self::load_checkpoint), without blocking.
    ///
    /// # Errors
    /// As [`load_checkpoint`](Self::load_checkpoint).
    pub fn load_checkpoint_async(&self, checkpoint: Arc<Checkpoint>) -> AsyncCall<Loaded> {
        self.call(move |loader| loader.load_checkpoint(checkpoint))
    }

    /// As [`stream`](Self::stream), without blocking: neither until the load has started, nor for its
    /// tensors.
    ///
    /// ```no_run
    /// # async fn start() -> ringload::Result<()> {
    /// use ringload::{Loader, MemoryLimit};
    ///
    /// let loader = Loader::new().memory_limit(MemoryLimit::Bytes(2 << 30));
    /// let mut stream = loader.stream_async("s3://bucket/llama-8b/").await?;
    /// while let Some(tensor) = stream.next().await {
    ///     let tensor = tensor?;
    ///     println!("{}: {} bytes", tensor.name(), tensor.bytes().len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub fn stream_async(&self, locations: impl IntoLocations) -> AsyncCall<AsyncTensorStream> {
        let locations = locations.into_locations();
        self.call(move |loader| Ok(loader.stream(locations?)?.into_async()))
    }

    /// As [`stream_checkpoint`](Self::stream_checkpoint), without blocking.
    ///
    /// # Errors
    /// As [`stream_checkpoint`](Self::stream_checkpoint).
    pub fn stream_checkpoint_async(
        &self,
        checkpoint: Arc<Checkpoint>,
    ) -> AsyncCall<AsyncTensorStream> {
        self.call(move |loader| Ok(loader.stream_checkpoint(checkpoint)?.into_async()))
    }

    /// As [`read_tensor`](Self::read_tensor), without blocking.
    ///
    /// # Errors
    /// As [`read_tensor`](Self::read_tensor).
    pub fn read_tensor_async(
        &self,
        checkpoint: &Arc<Checkpoint>,
        name: &str,
        picks: Option<&[Pick]>,
    ) -> AsyncCall<Tensor> {
        let (checkpoint, name) = (Arc::clone(checkpoint), name.to_owned());
        let picks = picks.map(<[Pick]>::to_vec);
        self.call(move |loader| loader.read_tensor(&checkpoint, &name, picks.as_deref()))
    }

    /// As [`read_into`](Self::read_into) for host memory, without blocking. The call owns the buffers
    /// and gives them back, in the order of the requests, also after an error: a future that is dropped
    /// leaves them to the call's thread, which frees them when no read writes to them any more.
    ///
    /// ```no_run
    /// # async fn start() -> ringload::Result<()> {
    /// use ringload::{Loader, Location, OwnedReadRequest};
    ///
    /// let location = Location::parse("s3://bucket/llama-8b/model.safetensors")?;
    /// let request = OwnedReadRequest::new(location, 0, vec![0; 8]);
    /// let (buffers, outcome) = Loader::new().read_into_async(vec![request]).await?;
    /// outcome?;
    /// println!("the header has {} bytes", u64::from_le_bytes(buffers[0][..8].try_into().unwrap()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no thread can be started; the outcome has the errors of [`read_into`](Self::read_into).
    pub fn read_into_async<B: AsMut<[u8]> + Send + 'static>(
        &self,
        requests: Vec<OwnedReadRequest<B>>,
    ) -> AsyncCall<(Vec<B>, Result<Summary>)> {
        self.call(move |loader| {
            let mut requests = requests;
            let outcome = {
                let borrowed = requests.iter_mut().map(|request| {
                    let OwnedReadRequest { location, offset_bytes, into } = request;
                    ReadRequest::new(location.clone(), *offset_bytes, into.as_mut())
                });
                let mut borrowed: Vec<_> = borrowed.collect();
                loader.read_into(&mut borrowed, |_| ControlFlow::Continue(()))
            };
            Ok((requests.into_iter().map(|request| request.into).collect(), outcome))
        })
    }

    /// Downloads the objects of `files` to `directory` as [`download`](Self::download) does, and waits
    /// until they have their final names, without blocking. Dropping the future stops the download; what
    /// has arrived is kept for the next attempt.
    ///
    /// ```no_run
    /// # async fn start() -> ringload::Result<()> {
    /// use ringload::{Loader, Location, Progress};
    ///
    /// let from = Location::parse("s3://bucket/llama-8b/tokenizer.json")?;
    /// let progress = Progress::new();
    /// let loader = Loader::new().progress(&progress);
    /// let done = loader.download_async(&[(from, "tokenizer.json".into())], "/models/llama-8b").await?;
    /// println!("{} bytes in {:?}", done.bytes, done.files);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`download`](Self::download) and [`Download::finish`](crate::Download::finish).
    #[cfg(feature = "http")]
    pub fn download_async(
        &self,
        files: &[(Location, PathBuf)],
        directory: impl Into<PathBuf>,
    ) -> AsyncCall<Downloaded> {
        let (files, directory) = (files.to_vec(), directory.into());
        self.call(move |loader| loader.download(&files, &directory)?.finish())
    }

    /// As [`download_async`](Self::download_async), of the files of a checkpoint, as
    /// [`download_checkpoint`](Self::download_checkpoint) does.
    ///
    /// # Errors
    /// As [`download_checkpoint`](Self::download_checkpoint) and
    /// [`Download::finish`](crate::Download::finish).
    #[cfg(feature = "http")]
    pub fn download_checkpoint_async(
        &self,
        locations: impl IntoLocations,
        directory: impl Into<PathBuf>,
    ) -> AsyncCall<Downloaded> {
        let (locations, directory) = (locations.into_locations(), directory.into());
        self.call(move |loader| loader.download_checkpoint(locations?, &directory)?.finish())
    }

    /// As [`list`](Self::list), without blocking.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn list_async(&self, directory: &Location, recursive: bool) -> AsyncCall<Vec<Listed>> {
        let directory = directory.clone();
        self.call(move |loader| loader.list(&directory, recursive))
    }

    /// Runs `call` on a thread of its own, with a loader whose cancellation ends with the future.
    pub(super) fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(Loader) -> Result<T> + Send + 'static,
    ) -> AsyncCall<T> {
        let cancellation = self.opener.cancellation().child();
        let loader = self.clone().cancellation(&cancellation);
        AsyncCall(Box::pin(async move {
            let mut cancel = CancelOnDrop(Some(cancellation));
            let outcome = on_own_thread(move || call(loader)).await;
            cancel.0 = None;
            outcome?
        }))
    }
}
