//! Ensures that no shared slice of a ring's memory exists while foreign code may write to it.

// `tests/integration/lending_model.rs` compiles this file with loom's types in `sync`.
use super::sync::{Condvar, Mutex};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Whether memory of a ring is lent to writers outside of this crate, and how many of its parts are
/// borrowed as slices.
///
/// Parts are borrowed only before the first lending, and the first lending waits until all of them
/// are returned. The rule holds for the ring as a whole: a load whose tensors are written to waits
/// at most once, for at most one disk write of each of the cache's writer threads.
#[derive(Debug, Default)]
pub(super) struct Lending {
    state: Mutex<LendingState>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct LendingState {
    lent: bool,
    borrows: usize,
}

impl Lending {
    /// Forbids further borrows, and waits until the present ones are returned.
    pub fn lend(&self) {
        let mut state = self.state.lock();
        state.lent = true;
        drop(self.returned.wait_while(state, |state| state.borrows > 0));
    }

    /// Whether [`lend`](Self::lend) has nothing to wait for.
    pub fn is_lent(&self) -> bool {
        let state = self.state.lock();
        state.lent && state.borrows == 0
    }

    /// Keeps the memory from being lent until the borrow is dropped. Returns `None` once it is
    /// lent.
    pub fn borrow(&self) -> Option<Borrow<'_>> {
        let mut state = self.state.lock();
        (!state.lent).then(|| {
            state.borrows += 1;
            Borrow(self)
        })
    }
}

/// The right to make slices of parts.
pub(super) struct Borrow<'a>(&'a Lending);

impl Drop for Borrow<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.borrows -= 1;
        if state.borrows == 0 {
            self.0.returned.notify_all();
        }
    }
}

/// Copies memory that foreign code may be writing to: each byte of the copy is a value that the
/// source byte had at some moment of the copy.
///
/// No reference to the source is made; it is read by relaxed atomic loads.
///
/// # Safety
/// As many bytes as `into` has are initialised and mapped for reading and writing at `from`, and
/// Rust code writes to them, if at all, by atomic stores.
pub(crate) unsafe fn copy_lent(from: NonNull<u8>, into: &mut [u8]) {
    let head = from.align_offset(align_of::<AtomicU64>()).min(into.len());
    let (first, rest) = into.split_at_mut(head);
    let (words, last) = rest.as_chunks_mut::<{ size_of::<u64>() }>();
    let tail = head + words.as_flattened().len();
    let byte = |at: usize| {
        // SAFETY: within the source, which the caller vouches for.
        unsafe { AtomicU8::from_ptr(from.add(at).as_ptr()) }.load(Ordering::Relaxed)
    };
    (0..).zip(first).for_each(|(at, into)| *into = byte(at));
    (head..).step_by(size_of::<u64>()).zip(words).for_each(|(at, into)| {
        // SAFETY: as above; `head` aligned it.
        let word = unsafe { AtomicU64::from_ptr(from.add(at).cast().as_ptr()) };
        *into = word.load(Ordering::Relaxed).to_ne_bytes();
    });
    (tail..).zip(last).for_each(|(at, into)| *into = byte(at));
}
