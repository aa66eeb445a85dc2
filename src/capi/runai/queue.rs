//! The submissions that wait to be read, and the responses that wait to be taken.
//!
//! ```text
//! push --> waiting --> take (reader threads) --> respond --> ready --> response
//! ```
//!
//! A range's response is in `ready` as soon as its memory is filled. The last response of a
//! submission is marked. After taking it, the caller may reuse the memory, as nothing of that
//! submission is in flight any more.

use super::code::{Failure, RunaiFileStreamerResponse as Code};
use super::submission::{Range, Submission};
use crate::source::Cancellation;
use crate::sync::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many submissions are read at once.
const READERS_MAX: usize = 2;

/// The outcome of one range.
#[derive(Debug)]
pub struct Response {
    pub outcome: Result<(), Failure>,
    pub submission: u64,
    pub file: u32,
    pub index: u32,
    /// Whether this is the last response of the submission.
    pub is_last: bool,
}

/// The queue of submissions and their responses.
#[derive(Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    /// Notified when a response is ready, and when none will come.
    responded: Condvar,
    /// Notified when a submission waits, and when none will come.
    submitted: Condvar,
    /// Notified when no thread writes to memory of requests.
    quiet: Condvar,
    /// Cancelled when the queue ends.
    pub cancellation: Cancellation,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Submission>,
    ready: VecDeque<Response>,
    /// The number of responses that are still to come, by submission.
    outstanding: HashMap<u64, usize>,
    readers: Vec<JoinHandle<()>>,
    idle_readers: usize,
    /// How many threads run code that writes to memory of requests.
    writing: usize,
    is_ending: bool,
}

impl Queue {
    /// Queues `submission`, and starts a reader thread with `spawn` if none is idle.
    ///
    /// # Errors
    /// [`FinishedError`](Code::FinishedError) after [`end`](Self::end), and
    /// [`UnknownError`](Code::UnknownError) if there is no reader and none can be started. No
    /// responses come then.
    pub fn push(
        &self,
        submission: Submission,
        spawn: impl FnOnce() -> io::Result<JoinHandle<()>>,
    ) -> Result<(), Code> {
        let mut state = self.state.lock();
        if state.is_ending {
            return Err(Code::FinishedError);
        }
        if submission.ranges.is_empty() {
            return Ok(());
        }
        state.readers.retain(|reader| !reader.is_finished());
        if state.idle_readers <= state.waiting.len() && state.readers.len() < READERS_MAX {
            match spawn() {
                Ok(reader) => state.readers.push(reader),
                Err(_) if state.readers.is_empty() => return Err(Code::UnknownError),
                Err(_) => {} // the running readers take it
            }
        }
        state.outstanding.insert(submission.id, submission.ranges.len());
        state.waiting.push_back(submission);
        drop(state);
        self.submitted.notify_one();
        Ok(())
    }

    /// Waits for the next submission. `None` after [`end`](Self::end).
    pub fn take(&self) -> Option<Submission> {
        let mut state = self.state.lock();
        while !state.is_ending {
            if let Some(submission) = state.waiting.pop_front() {
                return Some(submission);
            }
            state.idle_readers += 1;
            state = self.submitted.wait(state);
            state.idle_readers -= 1;
        }
        None
    }

    /// Waits for the next response, at most for `timeout` if there is one.
    ///
    /// # Errors
    /// [`TimedOut`](Code::TimedOut), and [`FinishedError`](Code::FinishedError) after
    /// [`end`](Self::end).
    pub fn response(&self, timeout: Option<Duration>) -> Result<Response, Code> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.state.lock();
        loop {
            if state.is_ending {
                return Err(Code::FinishedError);
            }
            if let Some(response) = state.ready.pop_front() {
                return Ok(response);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Err(Code::TimedOut),
                Some(left) => self.responded.wait_for(state, left).0,
                None => self.responded.wait(state),
            };
        }
    }

    /// Ends the queue: wakes all threads that wait, cancels the loads, and returns when no thread
    /// writes to memory of requests any more.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.is_ending = true;
        state.waiting.clear();
        drop(state);
        self.responded.notify_all();
        self.submitted.notify_all();
        self.cancellation.cancel();
        drop(self.quiet.wait_while(self.state.lock(), |state| state.writing > 0));
    }

    /// Whether [`end`](Self::end) was called.
    pub fn is_ending(&self) -> bool {
        self.state.lock().is_ending
    }

    /// Runs `body`, which writes to memory of requests. Returns `None` without running it after
    /// [`end`](Self::end).
    pub fn writing<T>(&self, body: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state.lock();
        if state.is_ending {
            return None;
        }
        state.writing += 1;
        drop(state);
        let _writing = Writing(self);
        Some(body())
    }

    /// Adds a response for each of `ranges` of `submission` that has none yet.
    pub fn respond<'a>(
        &self,
        submission: &Submission,
        ranges: impl IntoIterator<Item = &'a Range>,
        outcome: Result<(), Failure>,
    ) {
        let mut state = self.state.lock();
        for range in ranges.into_iter().filter(|range| submission.mark_responded(range)) {
            let Some(outstanding) = state.outstanding.get_mut(&submission.id) else { break };
            *outstanding -= 1;
            let is_last = *outstanding == 0;
            if is_last {
                state.outstanding.remove(&submission.id);
            }
            state.ready.push_back(Response {
                outcome: outcome.clone(),
                submission: submission.id,
                file: range.file,
                index: range.index,
                is_last,
            });
        }
        drop(state);
        self.responded.notify_all();
    }
}

/// A thread that writes to memory of requests, until this is dropped.
struct Writing<'a>(&'a Queue);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.writing -= 1;
        if state.writing == 0 {
            self.0.quiet.notify_all();
        }
    }
}
