//! What a C program holds: numbers that look like pointers, and lead nowhere.
//!
//! They are looked up at every call. So a handle that was closed, or was never one, is an error and not
//! a crash; and what is closed while another thread uses it lives until that one is done. After a fork
//! they are the parent's.

use crate::process::ForkGuard;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock};

/// Handles are this far apart; below it, they tell their kind.
const STEP: usize = 16;

/// The live handles of one kind.
pub struct Handles<T> {
    kind: usize,
    live: RwLock<Live<T>>,
}

struct Live<T> {
    next: usize,
    of: BTreeMap<usize, ForkGuard<Arc<T>>>,
}

/// Why a handle leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It is not open.
    Closed,
    /// It was opened before the process was forked.
    OfParent,
}

impl<T> Handles<T> {
    /// None yet; `kind` is below 16 and of these only.
    pub const fn new(kind: usize) -> Self {
        Self { kind, live: RwLock::new(Live { next: STEP, of: BTreeMap::new() }) }
    }

    /// A new handle to `thing`; never NULL, and never one that was given before.
    pub fn open<Opaque>(&self, thing: Arc<T>) -> *mut Opaque {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let handle = live.next + self.kind;
        live.next += STEP;
        live.of.insert(handle, ForkGuard::new(thing));
        ptr::without_provenance_mut(handle)
    }

    /// What `handle` leads to.
    ///
    /// # Errors
    /// When it leads nowhere.
    pub fn get<Opaque>(&self, handle: *const Opaque) -> Result<Arc<T>, Stale> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let thing = live.of.get(&handle.addr()).ok_or(Stale::Closed)?;
        thing.here().cloned().ok_or(Stale::OfParent)
    }

    /// The same, also in a forked child: of what needs no thread and no lock.
    pub fn get_anywhere<Opaque>(&self, handle: *const Opaque) -> Option<Arc<T>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.of.get(&handle.addr())?.anywhere().cloned()
    }

    /// Whether `handle` was given by [`open`](Self::open) at some time.
    pub fn was_given<Opaque>(&self, handle: *const Opaque) -> bool {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        handle.addr() % STEP == self.kind && (STEP..live.next).contains(&handle.addr())
    }

    /// Closes `handle`, and gives what it led to, if it was open; in a forked child that is forgotten.
    pub fn close<Opaque>(&self, handle: *const Opaque) -> Option<Arc<T>> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.of.remove(&handle.addr())?.into_here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;

    #[test]
    fn stale_and_foreign_handles_lead_nowhere() {
        let (numbers, texts) = (Handles::new(1), Handles::new(2));
        let one = numbers.open::<c_void>(Arc::new(1));
        let text = texts.open::<c_void>(Arc::new("text"));
        assert_eq!(numbers.get(text), Err(Stale::Closed));
        assert_eq!(texts.get(one), Err(Stale::Closed));
        assert_eq!(numbers.get::<c_void>(ptr::null()), Err(Stale::Closed));
        assert_eq!(numbers.close(one).as_deref(), Some(&1));
        assert!(numbers.get(one).is_err() && numbers.close(one).is_none());
        assert_ne!(numbers.open::<c_void>(Arc::new(2)), one);
        assert!(numbers.was_given(one) && !numbers.was_given(text));
        assert!(!numbers.was_given::<c_void>(ptr::null()));
    }
}
