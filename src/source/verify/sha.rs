//! Computes the SHA-256 of an object whose ranges arrive in any order, although SHA-256 can only be
//! computed from front to back.
//!
//! A range that has arrived waits, in its memory, until all ranges before it were added. The wait
//! ends, because loads guarantee two things: the reads of one object's ranges begin in ascending
//! order, so the read of the first missing range has begun and waits for no other; and a read that
//! waits here has its bytes already and holds no connection. Waits of different objects are
//! independent.

use crate::checksum::Sha256;
use crate::error::{Error, Result};
use crate::source::stop::Stop;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// The digest of the object's bytes up to the first gap.
pub(crate) struct OrderedSha256(Mutex<ShaState>);

struct ShaState {
    digest: Sha256,
    /// How many bytes the digest covers.
    covered: u64,
    /// Whether a thread is updating the digest outside of the lock.
    busy: bool,
    /// The ranges that wait, by their offsets. Each is woken when all bytes before it were added.
    waiting: BTreeMap<u64, Vec<Arc<Notify>>>,
}

impl ShaState {
    fn new(digest: Sha256, covered: u64) -> Self {
        Self { digest, covered, busy: false, waiting: BTreeMap::new() }
    }
}

impl Clone for OrderedSha256 {
    fn clone(&self) -> Self {
        let state = self.0.lock();
        Self(Mutex::new(ShaState::new(state.digest.clone(), state.covered)))
    }
}

impl OrderedSha256 {
    /// The digest of no bytes so far.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) in a build without SHA-256.
    pub fn new() -> Result<Self> {
        let digest = Sha256::new().ok_or_else(|| Error::needs_feature("SHA-256", "sha256"))?;
        Ok(Self(Mutex::new(ShaState::new(digest, 0))))
    }

    /// Adds the `bytes` at `offset`, once all bytes before them were added.
    pub async fn add(&self, offset: u64, bytes: &[u8]) {
        while !self.try_add(offset, bytes) {
            if let Some(turn) = self.turn(offset) {
                turn.notified().await;
            }
        }
    }

    /// What the range at `offset` waits for, if it has to wait.
    fn turn(&self, offset: u64) -> Option<Arc<Notify>> {
        let mut state = self.0.lock();
        if !state.busy && state.covered >= offset {
            return None;
        }
        let turn = Arc::new(Notify::new());
        state.waiting.entry(offset).or_default().push(Arc::clone(&turn));
        Some(turn)
    }

    /// As [`add`](Self::add), but returns false if a wait would be needed. Ignores bytes that were
    /// added before.
    pub fn try_add(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut state = self.0.lock();
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
        let mut state = self.0.lock();
        state.digest = digest;
        state.covered += new.len() as u64;
        state.busy = false;
        let beyond = state.covered.saturating_add(1);
        let later = state.waiting.split_off(&beyond);
        let ready = std::mem::replace(&mut state.waiting, later);
        drop(state);
        // A turn that is taken before it is awaited is not missed.
        ready.values().flatten().for_each(|turn| turn.notify_one());
        true
    }

    /// As [`add`](Self::add), until `stop` is set.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled) when it is set.
    pub async fn add_unless_stopped(&self, offset: u64, bytes: &[u8], stop: &Stop) -> Result<()> {
        stop.unless_stopped(self.add(offset, bytes)).await
    }

    /// The digest of all `len_bytes`, if they were all added.
    pub fn complete(&self, len_bytes: u64) -> Option<[u8; 32]> {
        let state = self.0.lock();
        let digest = (state.covered == len_bytes && !state.busy).then(|| state.digest.clone())?;
        drop(state);
        Some(digest.finish())
    }
}
