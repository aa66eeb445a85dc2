//! A model of the rule in `src/ring/lending.rs`: memory of a ring is never written to by its borrower
//! while the cache's writer has a slice of it.
//!
//! loom runs the threads of each model in every order of their steps, and fails where two accesses to
//! a cell overlap of which one writes. Planted once and found: a `lend` that does not wait, and a
//! `borrow` that ignores that the memory is lent.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

#[allow(dead_code, reason = "the model needs the rule alone")]
#[allow(unsafe_code, reason = "the copies of lent memory stand beside the rule")]
#[path = "../../src/ring/lending.rs"]
mod lending;

/// loom's types with the methods of `src/sync.rs` that the rule calls.
mod sync {
    pub use loom::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    #[derive(Debug, Default)]
    pub struct Condvar(loom::sync::Condvar);

    impl<T> Mutex<T> {
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    impl Condvar {
        pub fn wait_while<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            mut condition: impl FnMut(&mut T) -> bool,
        ) -> MutexGuard<'a, T> {
            while condition(&mut guard) {
                guard = self.0.wait(guard).unwrap();
            }
            guard
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

/// Memory, and the rule that guards it.
#[derive(Default)]
struct Memory {
    lending: lending::Lending,
    byte: UnsafeCell<u8>,
}

impl Memory {
    /// What the cache's writer does: it looks at the memory while it may.
    fn write_to_cache(&self) -> bool {
        let borrowed = self.lending.borrow();
        if borrowed.is_some() {
            self.byte.with(|byte| {
                // SAFETY: loom fails the model if a write overlaps.
                #[allow(unsafe_code)]
                let byte = unsafe { *byte };
                assert_eq!(byte, 0, "written to before it was lent");
            });
        }
        borrowed.is_some()
    }

    /// What a consumer does that the tensor is lent to.
    fn write_to_tensor(&self) {
        self.lending.lend();
        assert!(self.lending.is_lent());
        // SAFETY: loom fails the model if another access overlaps.
        #[allow(unsafe_code)]
        self.byte.with_mut(|byte| unsafe { *byte = 1 });
    }
}

#[test]
fn a_consumer_never_writes_to_memory_that_two_writers_of_the_cache_look_at() {
    loom::model(|| {
        let memory = Arc::new(Memory::default());
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || memory.write_to_cache())
            })
            .collect();
        memory.write_to_tensor();
        assert!(!memory.write_to_cache(), "borrowed although it is lent");
        for writer in writers {
            drop(writer.join());
        }
    });
}

#[test]
fn later_lendings_do_not_wait_and_a_first_one_always_ends() {
    loom::model(|| {
        let memory = Arc::new(Memory::default());
        let consumers: Vec<_> = (0..2)
            .map(|_| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || memory.lending.lend())
            })
            .collect();
        memory.write_to_cache();
        for consumer in consumers {
            drop(consumer.join());
        }
        assert!(memory.lending.is_lent() && memory.lending.borrow().is_none());
    });
}
