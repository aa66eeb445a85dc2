//! Whether a body keeps coming: it has to bring [`RetryLimits::STALLED_BYTES`] in each
//! [`RetryLimits::stalled`], however many reads that takes, or end.

use crate::options::RetryLimits;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Sees a body that does not move.
pub(crate) struct Watch {
    look: Pin<Box<Sleep>>,
    every: Duration,
    got_at_look: usize,
}

impl Watch {
    /// Of a body that begins now, when `got` bytes are there.
    pub fn new(limits: &RetryLimits, got: usize) -> Self {
        let every = limits.stalled;
        Self { look: Box::pin(sleep(every)), every, got_at_look: got }
    }

    /// Ends when too little has come since the last look, of which `got` is there now.
    pub async fn stalled(&mut self, got: usize) {
        loop {
            self.look.as_mut().await;
            if ((got - self.got_at_look) as u64) < RetryLimits::STALLED_BYTES {
                return;
            }
            self.got_at_look = got;
            self.look.as_mut().reset(Instant::now() + self.every);
        }
    }
}
