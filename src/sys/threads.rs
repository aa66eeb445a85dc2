//! Starts threads. A thread that cannot be started, because of `ulimit -u` or a container's limit of
//! processes, is an error, where `std::thread::spawn`, `Scope::spawn` and tokio's `spawn_blocking`
//! panic. The test `bounds` searches the sources for those calls.

use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread called `name`.
///
/// # Errors
/// [`OutOfMemory`](ErrorKind::OutOfMemory), with the remedy, if the system refuses.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(body).map_err(refused)
}

/// Starts a thread that ends with `scope`.
///
/// # Errors
/// [`OutOfMemory`](ErrorKind::OutOfMemory), with the remedy, if the system refuses.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, body).map_err(refused)
}

/// Runs `work`, which may block, on a thread of its own, and returns its result.
///
/// # Errors
/// As [`spawn`].
pub(crate) async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    spawn("ringload-blocking", move || {
        // The receiver is gone if the caller no longer waits.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| Error::new(ErrorKind::Io, "a thread panicked; this is a bug"))
}

fn refused(cause: io::Error) -> Error {
    let sentence = "cannot start a thread: the limit of processes and threads is reached, or memory \
                    is short; raise ulimit -u or the container's limit of processes (pids.max), or \
                    set fewer engines";
    Error::new(ErrorKind::OutOfMemory, sentence).with_source(cause)
}
