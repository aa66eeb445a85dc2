//! How many checks of pages run at once: on half of the cores while reads of cached files are on the
//! way, on all of them while none is.
//!
//! Checks are as fast as memory, and one core is enough to keep up with a disk. On all cores they keep
//! the kernel and the engines from handing the disk its next reads: some disks end what is queued in
//! bursts of 80 MiB and more, and summing up a burst took 2 of every 31 ms from the disk. But when
//! nothing is left to be read, as at the end of every load, whoever waits for the last burst waits for
//! its checks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The turns that checks take.
#[derive(Debug)]
pub(super) struct Checks {
    cores: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    reads: usize,
    checks: usize,
}

/// A read on the way, until it is dropped.
#[derive(Debug)]
pub(super) struct Reading<'a>(&'a Checks);

/// A check in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct Checking<'a>(&'a Checks);

impl Checks {
    pub fn new(cores: usize) -> Self {
        Self { cores, state: Mutex::default(), changed: Notify::new() }
    }

    /// Says that a read is on the way.
    pub fn reading(&self) -> Reading<'_> {
        self.state().reads += 1;
        Reading(self)
    }

    /// Waits for a turn to check.
    pub async fn turn(&self) -> Checking<'_> {
        loop {
            // From here on no change is missed.
            let changed = self.changed.notified();
            if let Some(turn) = self.try_turn() {
                return turn;
            }
            changed.await;
        }
    }

    fn try_turn(&self) -> Option<Checking<'_>> {
        let mut state = self.state();
        let most = if state.reads == 0 { self.cores } else { self.cores / 2 };
        (state.checks < most.max(1)).then(|| {
            state.checks += 1;
            Checking(self)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let is_last = {
            let mut state = self.0.state();
            state.reads -= 1;
            state.reads == 0
        };
        if is_last {
            self.0.changed.notify_waiters();
        }
    }
}

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        self.0.state().checks -= 1;
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
        let checks = Checks::new(4);
        let reading = checks.reading();
        let half: Vec<_> = std::iter::from_fn(|| checks.try_turn()).take(9).collect();
        assert_eq!(half.len(), 2);
        let other = checks.reading();
        drop(reading);
        assert!(checks.try_turn().is_none());
        drop(other);
        let rest: Vec<_> = std::iter::from_fn(|| checks.try_turn()).take(9).collect();
        assert_eq!(rest.len(), 2);
    }

    #[test]
    fn there_is_always_one() {
        let checks = Checks::new(1);
        let _reading = checks.reading();
        assert!(checks.try_turn().is_some());
    }

    #[test]
    fn who_waits_is_woken_by_the_end_of_a_check_and_of_the_last_read() {
        let checks = Checks::new(2);
        let (reading, first) = (checks.reading(), checks.try_turn());
        let mut context = Context::from_waker(Waker::noop());
        let mut second = pin!(checks.turn());
        let mut third = pin!(checks.turn());
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
