//! Detects stalled bodies: in each period of [`RetryLimits::stalled`], a body has to deliver
//! [`RetryLimits::STALLED_BYTES`], by any number of reads, or end.

use crate::options::RetryLimits;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The stall timeout of one body.
pub(crate) struct StallTimeout {
    timer: Pin<Box<Sleep>>,
    period: Duration,
    received_before: usize,
}

impl StallTimeout {
    /// Starts the first period, when `received` bytes have arrived.
    pub fn new(limits: &RetryLimits, received: usize) -> Self {
        let period = limits.stalled;
        Self { timer: Box::pin(sleep(period)), period, received_before: received }
    }

    /// Completes when a period ends in which too few bytes arrived. `received` is the number of
    /// bytes that have arrived so far.
    pub async fn expired(&mut self, received: usize) {
        loop {
            self.timer.as_mut().await;
            if ((received - self.received_before) as u64) < RetryLimits::STALLED_BYTES {
                return;
            }
            self.received_before = received;
            self.timer.as_mut().reset(Instant::now() + self.period);
        }
    }
}
