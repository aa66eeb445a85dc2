//! From the engines to a GPU's thread: full slots, in the order they came.

use crate::ring::FullSlot;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A full slot, and what is known of it.
pub(super) struct Full {
    /// Its extent.
    pub index: usize,
    pub slot: FullSlot,
    /// The sums of its parts, where the GPU is to sum them up too.
    pub sums: Vec<u64>,
}

/// A queue of full slots, bounded by the ring that they come from.
#[derive(Default)]
pub(super) struct Intake {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    slots: VecDeque<Full>,
    closed: bool,
}

impl Intake {
    /// Adds a full slot.
    pub fn push(&self, full: Full) {
        self.lock().slots.push_back(full);
        self.changed.notify_one();
    }

    /// Says that nothing more comes.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The next slot, waiting for it; `None` when it is closed and empty.
    pub fn next(&self) -> Option<Full> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.slots.pop_front() {
                return Some(next);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
