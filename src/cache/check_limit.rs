//! Limits how many checks of pages run at once: to half of the cores while cached files are being
//! read, and to all cores otherwise.
//!
//! Checks are as fast as memory, and one core keeps up with a disk. Checks on all cores would keep
//! the kernel and the engines from submitting the next reads: some disks complete what is queued in
//! bursts of 80 MiB and more, and checking a burst cost 2 ms of the disk's time in every 31. But when
//! nothing is left to be read, as at the end of every load, the load waits for the checks alone.

use crate::sync::Mutex;
use tokio::sync::Notify;

/// Issues permits to check pages.
#[derive(Debug)]
pub(super) struct CheckLimit {
    cores: usize,
    running: Mutex<Running>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Running {
    reads: usize,
    checks: usize,
}

/// Counts as a read in progress until it is dropped.
#[derive(Debug)]
pub(super) struct ReadInProgress<'a>(&'a CheckLimit);

/// The permit of one check. Dropping it returns the permit.
#[derive(Debug)]
pub(super) struct CheckPermit<'a>(&'a CheckLimit);

impl CheckLimit {
    pub fn new(cores: usize) -> Self {
        Self { cores, running: Mutex::default(), changed: Notify::new() }
    }

    /// Counts a read until the result is dropped.
    pub fn reading(&self) -> ReadInProgress<'_> {
        self.running.lock().reads += 1;
        ReadInProgress(self)
    }

    /// Waits for a permit to run one check.
    pub async fn permit(&self) -> CheckPermit<'_> {
        loop {
            // Created before the counts are read, so that no change is missed.
            let changed = self.changed.notified();
            if let Some(permit) = self.try_permit() {
                return permit;
            }
            changed.await;
        }
    }

    fn try_permit(&self) -> Option<CheckPermit<'_>> {
        let mut running = self.running.lock();
        let most = if running.reads == 0 { self.cores } else { self.cores / 2 };
        (running.checks < most.max(1)).then(|| {
            running.checks += 1;
            CheckPermit(self)
        })
    }
}

impl Drop for ReadInProgress<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.lock();
        running.reads -= 1;
        if running.reads == 0 {
            drop(running);
            self.0.changed.notify_waiters();
        }
    }
}

impl Drop for CheckPermit<'_> {
    fn drop(&mut self) {
        self.0.running.lock().checks -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn all_cores_check_while_nothing_is_read() {
        let checks = CheckLimit::new(4);
        let reading = checks.reading();
        let half: Vec<_> = std::iter::from_fn(|| checks.try_permit()).take(9).collect();
        assert_eq!(half.len(), 2);
        let other = checks.reading();
        drop(reading);
        assert!(checks.try_permit().is_none());
        drop(other);
        let rest: Vec<_> = std::iter::from_fn(|| checks.try_permit()).take(9).collect();
        assert_eq!(rest.len(), 2);
    }

    #[test]
    fn one_core_still_checks() {
        let checks = CheckLimit::new(1);
        let _reading = checks.reading();
        assert!(checks.try_permit().is_some());
    }

    #[test]
    fn waiters_are_woken_by_the_end_of_a_check_and_of_the_last_read() {
        let checks = CheckLimit::new(2);
        let (reading, first) = (checks.reading(), checks.try_permit());
        let mut context = Context::from_waker(Waker::noop());
        let mut second = pin!(checks.permit());
        let mut third = pin!(checks.permit());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(first);
        let Poll::Ready(second) = second.poll(&mut context) else { panic!("it waits on") };
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(reading);
        assert!(third.poll(&mut context).is_ready());
        drop(second);
    }
}
