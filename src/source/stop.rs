//! The signal that stops a load.

use crate::error::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
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
        let mut waiting = std::pin::pin!(self.waiting.notified());
        // Registered before the flag is checked, so that no call of `set` is missed.
        waiting.as_mut().enable();
        if !self.is_set() {
            waiting.await;
        }
    }
}

/// The error of work that was stopped.
pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "the load was cancelled")
}
