//! Handles: the numbers that a C program holds instead of pointers.
//!
//! A handle looks like a pointer, but nothing is at its address. Every call looks the handle up, so
//! a closed or invalid handle is an error and not a crash. A value that is closed while another
//! thread uses it lives until that thread is done. A forked child cannot use the handles of its
//! parent.

use crate::fork_guard::ForkGuard;
use crate::sync::RwLock;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::Arc;

/// Handles are this far apart. The remainder modulo this is their kind.
const STEP: usize = 16;

/// The open handles of one kind.
pub struct Handles<T> {
    kind: usize,
    table: RwLock<HandleTable<T>>,
}

struct HandleTable<T> {
    next: usize,
    values: BTreeMap<usize, ForkGuard<Arc<T>>>,
}

/// The reason why a handle cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidHandle {
    /// The handle is not open.
    Closed,
    /// The handle was opened before the process was forked.
    Forked,
}

impl<T> Handles<T> {
    /// Returns an empty table. `kind` is below 16, and no other table has it.
    pub const fn new(kind: usize) -> Self {
        let table = HandleTable { next: STEP, values: BTreeMap::new() };
        Self { kind, table: RwLock::new(table) }
    }

    /// Returns a new handle to `value`. It is never NULL, and never a handle that was returned
    /// before.
    pub fn open<Opaque>(&self, value: Arc<T>) -> *mut Opaque {
        let mut table = self.table.write();
        let handle = table.next + self.kind;
        table.next += STEP;
        table.values.insert(handle, ForkGuard::new(value));
        ptr::without_provenance_mut(handle)
    }

    /// Returns the value of `handle`.
    ///
    /// # Errors
    /// When the handle is not open, or belongs to the parent process.
    pub fn get<Opaque>(&self, handle: *const Opaque) -> Result<Arc<T>, InvalidHandle> {
        let table = self.table.read();
        let value = table.values.get(&handle.addr()).ok_or(InvalidHandle::Closed)?;
        value.get().cloned().ok_or(InvalidHandle::Forked)
    }

    /// Returns the value of `handle`, also in a forked child. See
    /// [`ForkGuard::get_in_any_process`].
    pub fn get_in_any_process<Opaque>(&self, handle: *const Opaque) -> Option<Arc<T>> {
        self.table.read().values.get(&handle.addr())?.get_in_any_process().cloned()
    }

    /// Whether [`open`](Self::open) ever returned `handle`.
    pub fn was_opened<Opaque>(&self, handle: *const Opaque) -> bool {
        let next = self.table.read().next;
        handle.addr() % STEP == self.kind && (STEP..next).contains(&handle.addr())
    }

    /// Closes `handle` and returns its value if it was open. A forked child forgets the value.
    pub fn close<Opaque>(&self, handle: *const Opaque) -> Option<Arc<T>> {
        self.table.write().values.remove(&handle.addr())?.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;

    #[test]
    fn closed_and_foreign_handles_are_refused() {
        let (numbers, texts) = (Handles::new(1), Handles::new(2));
        let one = numbers.open::<c_void>(Arc::new(1));
        let text = texts.open::<c_void>(Arc::new("text"));
        assert_eq!(numbers.get(text), Err(InvalidHandle::Closed));
        assert_eq!(texts.get(one), Err(InvalidHandle::Closed));
        assert_eq!(numbers.get::<c_void>(ptr::null()), Err(InvalidHandle::Closed));
        assert_eq!(numbers.close(one).as_deref(), Some(&1));
        assert!(numbers.get(one).is_err() && numbers.close(one).is_none());
        assert_ne!(numbers.open::<c_void>(Arc::new(2)), one);
        assert!(numbers.was_opened(one) && !numbers.was_opened(text));
        assert!(!numbers.was_opened::<c_void>(ptr::null()));
    }
}
