//! A thread for small requests (headers, listings, credentials), started by the first one. Opening a
//! checkpoint is a blocking call that may be made from any thread, and an engine that needs fresh
//! credentials must not tie the socket of a credential server to its own runtime.

use crate::error::{Error, Result};
use crate::sys::spawn;
use std::future::Future;
use std::sync::mpsc;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread. It ends some time after this is dropped.
pub(super) struct ControlThread {
    handle: Handle,
    _alive: oneshot::Sender<()>,
}

impl ControlThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread or its descriptors cannot be created.
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
        spawn("ringload-control", body)?;
        Ok(Self { handle, _alive: alive })
    }

    /// Runs `work` on the thread. The result may be awaited on any runtime.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(work)
    }

    /// Runs `work` on the thread and blocks the caller until it is done.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn block_on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, waiting) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // The receiver waits below.
            let _ = done.send(work.await);
        });
        waiting.recv().unwrap_or_else(|_| panic!("a small request panicked; this is a bug"))
    }
}
