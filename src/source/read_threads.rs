//! The threads of blocking reads of one engine.
//!
//! They are started as reads need them, up to a number that each read gives, and end with the
//! engine. tokio's pool would do the same, but it panics where its first thread cannot be started;
//! here the engine then makes the read itself.

use crate::sync::{Condvar, Mutex};
use crate::sys;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The maximum number of threads of an engine, for reads that are fast.
pub(super) const THREADS_MAX: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped and their reads are done.
#[derive(Default)]
pub(super) struct ReadThreads {
    shared: Arc<SharedQueue>,
}

#[derive(Default)]
struct SharedQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

impl ReadThreads {
    /// Runs `read` on one of the threads, of which at most `threads_max` are started.
    ///
    /// # Panics
    /// When `read` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        threads_max: usize,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The receiver is gone if the load was stopped.
            let _ = done.send(read());
        });
        if let Some(job) = self.queue(threads_max, job) {
            job();
        }
        result.await.unwrap_or_else(|_| panic!("a read panicked; this is a bug"))
    }

    /// Queues `job`; returns it if there is no thread to run it.
    fn queue(&self, threads_max: usize, job: Job) -> Option<Job> {
        let mut state = self.shared.state.lock();
        if state.idle <= state.jobs.len() && state.threads < threads_max {
            let shared = Arc::clone(&self.shared);
            match sys::spawn("ringload-read", move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads == 0 => return Some(job),
                Err(_) => {} // the present threads do it
            }
        }
        state.jobs.push_back(job);
        self.shared.changed.notify_one();
        None
    }
}

impl Drop for ReadThreads {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl SharedQueue {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state);
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_run_beside_each_other_and_the_threads_end() {
        let threads = ReadThreads::default();
        let shared = Arc::downgrade(&threads.shared);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // Each of two reads waits for the other one.
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let read = |number| {
            let barrier = Arc::clone(&barrier);
            threads.run(THREADS_MAX, move || {
                barrier.wait();
                number
            })
        };
        let numbers = runtime.block_on(async { tokio::join!(read(1), read(2)) });
        assert_eq!(numbers, (1, 2));
        for number in 0..100 {
            assert_eq!(runtime.block_on(threads.run(THREADS_MAX, move || number)), number);
        }
        assert!(threads.shared.state.lock().threads <= THREADS_MAX);
        drop(threads);
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
