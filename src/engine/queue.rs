//! From engines to the caller: what is done, in the order it was done.
//!
//! Unbounded on purpose: everything in it is a tensor that is in place, so the ring or the GPU bounds it. It also
//! knows whether (and since when) the caller is waiting, which tells a slow consumer from one that
//! holds all memory and waits for more.

use crate::error::{Error, Result};
use crate::tensor::LoadedTensors;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Something that was completed.
#[derive(Debug)]
pub(crate) enum Completion {
    /// Tensors of the plan.
    Tensors(LoadedTensors),
    /// Request `index` of a `read_into`.
    Request { index: usize },
}

pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

struct State {
    done: VecDeque<Completion>,
    error: Option<Error>,
    closed: bool,
    waiting_since: Option<Instant>,
    waker: Option<Waker>,
}

impl Queue {
    pub fn new() -> Self {
        let state = State {
            done: VecDeque::new(),
            error: None,
            closed: false,
            waiting_since: None,
            waker: None,
        };
        Self { state: Mutex::new(state), ready: Condvar::new() }
    }

    pub fn push(&self, done: Completion) {
        self.change(|state| {
            if !state.closed {
                state.done.push_back(done);
            }
        });
    }

    /// Ends the queue with `error`; what was not taken yet is dropped. The first error counts.
    pub fn fail(&self, error: Error) {
        self.change(|state| {
            if !state.closed {
                state.error = Some(error);
                state.done.clear();
                state.closed = true;
            }
        });
    }

    /// Says that nothing more comes.
    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// How long the caller has been waiting for something that is not there.
    pub fn starving_for(&self) -> Option<Duration> {
        let state = self.lock();
        state.waiting_since.filter(|_| state.done.is_empty()).map(|since| since.elapsed())
    }

    pub fn pop(&self) -> Option<Result<Completion>> {
        let mut state = self.lock();
        loop {
            if let Poll::Ready(taken) = state.take() {
                return taken;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Completion>>> {
        let mut state = self.lock();
        let taken = state.take();
        if taken.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        taken
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Poll<Option<Result<Completion>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match self.done.pop_front() {
            Some(done) => {
                self.waiting_since = None;
                Poll::Ready(Some(Ok(done)))
            }
            None if self.closed => Poll::Ready(None),
            None => {
                self.waiting_since.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }
}
