//! The signal that stops a load.

use crate::error::{Error, ErrorKind, Result};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use tokio::sync::Notify;

/// A signal that is set once. Read tasks check it between attempts, and waits for a server end when it
/// is set.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    waiting: Notify,
}

impl Stop {
    /// Stops the load.
    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.waiting.notify_waiters();
    }

    /// Whether the load is stopped.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Waits until the load is stopped.
    pub async fn stopped(&self) {
        let mut waiting = pin!(self.waiting.notified());
        // Registered before the flag is checked, so that no call of `set` is missed.
        waiting.as_mut().enable();
        if !self.is_set() {
            waiting.await;
        }
    }

    /// The result of `work`, if it is done before the load is stopped.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled) if the load is stopped first.
    pub(crate) async fn unless_stopped<F: Future>(&self, work: F) -> Result<F::Output> {
        let (mut work, mut stop) = (pin!(work), pin!(self.stopped()));
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => stop.as_mut().poll(cx).map(|()| Err(stopped())),
        })
        .await
    }
}

/// The error of work that was stopped.
pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "the load was cancelled")
}
