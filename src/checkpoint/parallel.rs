//! Runs one function for many numbers on several threads, with the result of a sequential run.
//!
//! Threads take the numbers in order, and no more after a failure. All numbers below a failed one were
//! taken before it and are waited for, so the failure with the lowest number is always found and
//! returned, whatever the timing.

use crate::error::Result;
use crate::options::{RemoteOptions, cores};
use crate::source::connections_allowed;
use crate::sys::spawn_scoped;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// The most threads that open objects, so that the headers of as many shards take one round trip.
const OPENING_THREADS: usize = 128;

/// The number of threads that open objects: no more than there may be connections.
pub(crate) fn opening_threads(options: &RemoteOptions) -> usize {
    options.connections.unwrap_or(OPENING_THREADS).min(connections_allowed())
}

/// The number of threads that compute `count` results. The number of cores is only asked for if it
/// matters, because that reads the files of the control groups.
pub(crate) fn computing_threads(count: usize) -> usize {
    if count > 1 { cores() } else { 1 }
}

type Outcomes<T> = Vec<(usize, Result<T>)>;

/// Returns the results of `work` for 0 to `count - 1`, in order, computed on up to `threads` threads.
///
/// The calling thread is one of them. If no thread can be started, it does all the work.
///
/// # Errors
/// The error of the lowest number that failed.
pub(crate) fn try_map<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let worker = || {
        let mut outcomes = Outcomes::new();
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let outcome = work(number);
            if outcome.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            outcomes.push((number, outcome));
        }
        outcomes
    };
    let mut outcomes = on_threads(threads.min(count), &worker);
    outcomes.sort_unstable_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Runs `worker` on this thread and up to `threads - 1` others.
fn on_threads<T: Send>(threads: usize, worker: &(impl Fn() -> Outcomes<T> + Sync)) -> Outcomes<T> {
    thread::scope(|scope| {
        let spawn = |_| spawn_scoped(scope, "ringload-headers", worker).ok();
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        let mut outcomes = worker();
        for other in others {
            outcomes.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        outcomes
    })
}

/// Returns the results of `other`, computed on another thread if one can be started, and of `own`.
pub(super) fn both<T: Send, U>(other: impl Fn() -> T + Sync, own: impl FnOnce() -> U) -> (T, U) {
    thread::scope(|scope| {
        let thread = spawn_scoped(scope, "ringload-headers", &other);
        let own = own();
        let other = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => other(),
        };
        (other, own)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use std::time::Duration;

    #[test]
    fn results_come_in_order() {
        assert_eq!(try_map(0, 4, Ok).unwrap(), Vec::<usize>::new());
        assert_eq!(try_map(1000, 4, Ok).unwrap(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn the_lowest_failure_wins_even_if_it_comes_late() {
        for _ in 0..20 {
            let error = try_map(100, 4, |number| {
                if number == 5 {
                    thread::sleep(Duration::from_millis(2));
                }
                match number {
                    0..5 => Ok(()),
                    _ => Err(Error::new(ErrorKind::Io, number.to_string())),
                }
            });
            assert_eq!(error.unwrap_err().to_string(), "5");
        }
    }
}
