//! SHA-256 of an object whose ranges come in any order: it can only be taken from front to back.
//!
//! A range that has come waits, in its memory, until all before it were taken in. This ends, because
//! of two things that loads keep to: the ranges of one object are begun in ascending order, so that
//! the first of those not taken in has been begun and waits for no other; and whoever waits here has
//! his bytes already and keeps no connection from anyone. Waits of different objects do not touch.

use aws_lc_rs::digest::{Context, SHA256};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The digest of an object's first bytes.
pub(super) struct InOrder {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Clone)]
struct State {
    digest: Context,
    /// How many bytes it has taken in.
    taken: u64,
    /// Whether someone is taking more in, outside of the lock.
    busy: bool,
}

impl Default for InOrder {
    fn default() -> Self {
        let state = State { digest: Context::new(&SHA256), taken: 0, busy: false };
        Self { state: Mutex::new(state), moved: Notify::new() }
    }
}

impl Clone for InOrder {
    fn clone(&self) -> Self {
        Self { state: Mutex::new(self.lock().clone()), moved: Notify::new() }
    }
}

impl InOrder {
    /// Takes in `bytes`, which stand at `offset`, as soon as all before them were.
    pub async fn take(&self, offset: u64, bytes: &[u8]) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // From here on no move is missed; earlier ones, the try sees.
            moved.as_mut().enable();
            if self.try_take(offset, bytes) {
                return;
            }
            moved.await;
        }
    }

    /// As [`take`](Self::take) where that is possible now; else false. Bytes that were taken in
    /// before are passed over.
    pub fn try_take(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.busy || state.taken < offset {
            return false;
        }
        let seen = usize::try_from(state.taken - offset).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(seen..).filter(|new| !new.is_empty()) else {
            return true;
        };
        state.busy = true;
        let mut digest = state.digest.clone();
        drop(state);
        digest.update(new);
        let mut state = self.lock();
        state.digest = digest;
        state.taken += new.len() as u64;
        state.busy = false;
        drop(state);
        self.moved.notify_waiters();
        true
    }

    /// The digest of all `len_bytes`, once they were taken in.
    pub fn of_all(&self, len_bytes: u64) -> Option<[u8; 32]> {
        let state = self.lock();
        let digest = (state.taken == len_bytes && !state.busy).then(|| state.digest.clone())?;
        drop(state);
        digest.finish().as_ref().try_into().ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
