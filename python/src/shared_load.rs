//! A load that any number of threads take tensors from.
//!
//! To wait, a thread polls the load's `futures::Stream` with a waker that all waiting threads wait
//! on. No thread holds the load while it waits, so that any thread can close it at any time.

use crate::interrupts::SIGNAL_INTERVAL;
use futures_core::Stream as _;
use ringload::internals::{Condvar, Mutex};
use ringload::{AsyncTensorStream, Error, Summary, Tensor, TensorStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// A load that several threads share.
pub(crate) struct SharedLoad {
    state: Mutex<LoadState>,
    wakeups: Arc<Wakeups>,
}

enum LoadState {
    Running(Box<AsyncTensorStream>),
    /// The load was closed. Its last summary is kept.
    Closed(Box<Summary>),
}

impl LoadState {
    /// Returns the load, or `None` if it was closed.
    fn running(&mut self) -> Option<&mut AsyncTensorStream> {
        match self {
            Self::Running(stream) => Some(stream),
            Self::Closed(_) => None,
        }
    }
}

/// Wakes the threads that wait for the next tensor.
#[derive(Default)]
struct Wakeups {
    /// The number of wakeups so far.
    count: Mutex<u64>,
    woken: Condvar,
}

impl Wake for Wakeups {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

impl Wakeups {
    fn wake_all(&self) {
        *self.count.lock() += 1;
        self.woken.notify_all();
    }

    /// Waits until the count is no longer `seen`, at most until signals have to be checked.
    fn wait(&self, seen: u64) {
        let count = self.count.lock();
        drop(self.woken.wait_while_for(count, |count| *count == seen, SIGNAL_INTERVAL));
    }
}

/// The result of waiting for a tensor.
pub(crate) enum Next {
    Tensor(Tensor),
    Error(Error),
    End,
    /// No tensor has completed yet.
    Pending,
}

impl SharedLoad {
    pub(crate) fn new(stream: TensorStream) -> Self {
        Self {
            state: Mutex::new(LoadState::Running(Box::new(stream.into_async()))),
            wakeups: Arc::default(),
        }
    }

    /// Returns a tensor that has completed, without waiting for storage or for other threads.
    pub(crate) fn at_hand(&self) -> Option<Tensor> {
        self.state.try_lock()?.running()?.at_hand()
    }

    /// Waits for the next tensor, at most until signals have to be checked.
    pub(crate) fn wait(&self) -> Next {
        let seen = *self.wakeups.count.lock();
        let next = self.poll();
        if matches!(next, Next::Pending) {
            self.wakeups.wait(seen);
        }
        next
    }

    fn poll(&self) -> Next {
        let waker = Waker::from(Arc::clone(&self.wakeups));
        let mut state = self.state.lock();
        let Some(stream) = state.running() else { return Next::End };
        match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(Ok(tensor))) => Next::Tensor(tensor),
            Poll::Ready(Some(Err(error))) => Next::Error(error),
            Poll::Ready(None) => Next::End,
            Poll::Pending => Next::Pending,
        }
    }

    /// Stops the load, and waits until none of its reads is in flight.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if let Some(stream) = state.running() {
            let closed = LoadState::Closed(Box::new(stream.summary()));
            if let LoadState::Running(stream) = std::mem::replace(&mut *state, closed) {
                drop(stream.into_blocking());
            }
        }
        drop(state);
        self.wakeups.wake_all();
    }

    pub(crate) fn summary(&self) -> Summary {
        match &*self.state.lock() {
            LoadState::Running(stream) => stream.summary(),
            LoadState::Closed(summary) => Summary::clone(summary),
        }
    }
}
