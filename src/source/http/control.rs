//! Small requests (headers, listings, credentials) run on a thread of their own, started when the
//! first one is made: opening a checkpoint is a blocking call that may be made from any thread, and
//! engines that need fresh credentials must not tie a credential server's socket to themselves.

use crate::error::{Error, Result};
use std::future::Future;
use std::sync::mpsc;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread. It ends some time after this is dropped.
pub(super) struct Control {
    handle: Handle,
    _alive: oneshot::Sender<()>,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptors.
    pub fn start() -> Result<Self> {
        let fail = |error| Error::from_io("start the thread for small requests", error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        let body = move || {
            // Ends when `alive` is dropped; nothing is ever sent.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("ringload-control".to_owned());
        thread.spawn(body).map_err(fail)?;
        Ok(Self { handle, _alive: alive })
    }

    /// Runs `work` there; it may be waited for on any runtime.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(work)
    }

    /// Runs `work` there and blocks this thread until it is done.
    pub fn block_on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, waiting) = mpsc::sync_channel(1);
        let task = self.handle.spawn(async move {
            // The receiver waits right below.
            let _ = done.send(work.await);
        });
        match waiting.recv() {
            Ok(answer) => answer,
            // The work panicked; so does whoever waits for it.
            Err(_) => {
                drop(task);
                panic!("a small request panicked; this is a bug")
            }
        }
    }
}
