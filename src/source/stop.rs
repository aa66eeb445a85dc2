//! Telling everything that a load does to stop.

use crate::error::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Set once; lanes look at it between attempts, and waits for a server end with it.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    waiting: Notify,
}

impl Stop {
    /// Tells everyone to stop.
    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.waiting.notify_waiters();
    }

    /// Whether to stop.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Waits until it is set.
    pub async fn stopped(&self) {
        let mut waiting = std::pin::pin!(self.waiting.notified());
        // From here on no call of `set` is missed; an earlier one, the look sees.
        waiting.as_mut().enable();
        if !self.is_set() {
            waiting.await;
        }
    }
}

/// The error of what was told to stop.
pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "the load was stopped")
}
