//! The queue of completions from the engines to the caller, in the order in which they completed.
//!
//! The queue is unbounded: everything in it is loaded, so the ring or the GPU's memory bounds it.
//! It also knows whether the caller waits, and since when. This distinguishes a slow consumer from
//! one that holds all memory and waits for more.

use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex};
use crate::tensor::LoadedTensors;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What the engines report to the caller.
#[derive(Debug)]
pub(crate) enum Completion {
    /// Tensors of the plan.
    Tensors(LoadedTensors),
    /// Request `index` of a `read_into`.
    Request { index: usize },
}

#[derive(Default)]
pub(crate) struct CompletionQueue {
    state: Mutex<QueueState>,
    ready: Condvar,
}

#[derive(Default)]
struct QueueState {
    completions: VecDeque<Completion>,
    error: Option<Error>,
    closed: bool,
    waiting_since: Option<Instant>,
    waker: Option<Waker>,
}

impl CompletionQueue {
    pub fn push(&self, completion: Completion) {
        self.change(|state| {
            if !state.closed {
                state.completions.push_back(completion);
            }
        });
    }

    /// Ends the queue with `error` and drops the completions that were not taken yet. Only the
    /// first error counts.
    pub fn fail(&self, error: Error) {
        self.change(|state| {
            if !state.closed {
                state.error = Some(error);
                state.completions.clear();
                state.closed = true;
            }
        });
    }

    /// Ends the queue: nothing is pushed from now on.
    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// How long the caller has been waiting on the empty queue. `None` while it does not wait.
    pub fn starving_for(&self) -> Option<Duration> {
        let state = self.state.lock();
        state.waiting_since.filter(|_| state.completions.is_empty()).map(|since| since.elapsed())
    }

    pub fn pop(&self) -> Option<Result<Completion>> {
        let mut state = self.state.lock();
        loop {
            if let Poll::Ready(taken) = state.take() {
                return taken;
            }
            state = self.ready.wait(state);
        }
    }

    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Completion>>> {
        let mut state = self.state.lock();
        let taken = state.take();
        if taken.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        taken
    }

    fn change(&self, change: impl FnOnce(&mut QueueState)) {
        let mut state = self.state.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl QueueState {
    fn take(&mut self) -> Poll<Option<Result<Completion>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match self.completions.pop_front() {
            Some(completion) => {
                self.waiting_since = None;
                Poll::Ready(Some(Ok(completion)))
            }
            None if self.closed => Poll::Ready(None),
            None => {
                self.waiting_since.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }
}
