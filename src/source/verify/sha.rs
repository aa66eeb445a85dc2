//! Computes the SHA-256 of an object whose ranges arrive in any order, although SHA-256 can only be
//! computed from front to back.
//!
//! A range that has arrived waits, in its memory, until all ranges before it were added. The wait
//! ends, because loads guarantee two things: the reads of one object's ranges begin in ascending
//! order, so the read of the first missing range has begun and waits for no other; and a read that
//! waits here has its bytes already and holds no connection. Waits of different objects are
//! independent.

use crate::sync::Mutex;
use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::Notify;

/// The digest of the object's bytes up to the first gap.
pub(super) struct OrderedSha256 {
    state: Mutex<ShaState>,
    progressed: Notify,
}

#[derive(Clone)]
struct ShaState {
    digest: Context,
    /// How many bytes the digest covers.
    covered: u64,
    /// Whether a thread is updating the digest outside of the lock.
    busy: bool,
}

impl Default for OrderedSha256 {
    fn default() -> Self {
        let state = ShaState { digest: Context::new(&SHA256), covered: 0, busy: false };
        Self { state: Mutex::new(state), progressed: Notify::new() }
    }
}

impl Clone for OrderedSha256 {
    fn clone(&self) -> Self {
        Self { state: Mutex::new(self.state.lock().clone()), progressed: Notify::new() }
    }
}

impl OrderedSha256 {
    /// Adds the `bytes` at `offset`, once all bytes before them were added.
    pub async fn add(&self, offset: u64, bytes: &[u8]) {
        loop {
            let mut progressed = std::pin::pin!(self.progressed.notified());
            // Registered before the state is checked, so that no notification is missed.
            progressed.as_mut().enable();
            if self.try_add(offset, bytes) {
                return;
            }
            progressed.await;
        }
    }

    /// As [`add`](Self::add), but returns false if a wait would be needed. Ignores bytes that were
    /// added before.
    pub fn try_add(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.busy || state.covered < offset {
            return false;
        }
        let seen = usize::try_from(state.covered - offset).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(seen..).filter(|new| !new.is_empty()) else {
            return true;
        };
        state.busy = true;
        let mut digest = state.digest.clone();
        drop(state);
        digest.update(new);
        let mut state = self.state.lock();
        state.digest = digest;
        state.covered += new.len() as u64;
        state.busy = false;
        drop(state);
        self.progressed.notify_waiters();
        true
    }

    /// The digest of all `len_bytes`, if they were all added.
    pub fn complete(&self, len_bytes: u64) -> Option<[u8; 32]> {
        let state = self.state.lock();
        let digest = (state.covered == len_bytes && !state.busy).then(|| state.digest.clone())?;
        drop(state);
        digest.finish().as_ref().try_into().ok()
    }
}
