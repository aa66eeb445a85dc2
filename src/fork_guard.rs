//! Values that are usable only in the process that made them.
//!
//! `fork` copies memory, but no threads. In a child, a load has no engines, a lock may be held by a
//! thread that does not exist there, and dropping a value might wait for such a thread. A
//! [`ForkGuard`] neither gives its value to a child nor drops it there. The C and Python bindings
//! wrap the values that they hand out, as their users may fork.

use std::process;

/// A value that belongs to the process that made it.
#[derive(Debug)]
pub struct ForkGuard<T> {
    /// `None` only while the guard is being dropped.
    value: Option<T>,
    process: u32,
}

impl<T> ForkGuard<T> {
    /// Returns a guard whose value belongs to this process.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), process: process::id() }
    }

    fn is_own_process(&self) -> bool {
        process::id() == self.process
    }

    /// Returns the value, or `None` in a process that did not make it.
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.is_own_process())
    }

    /// Returns the value in any process. In a child, use nothing of it that needs a thread or a
    /// lock.
    pub fn get_in_any_process(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Takes the value out. Returns `None` in a process that did not make it, where the value is
    /// forgotten.
    pub fn into_inner(mut self) -> Option<T> {
        let value = self.value.take()?;
        if self.is_own_process() {
            return Some(value);
        }
        std::mem::forget(value);
        None
    }
}

impl<T> Drop for ForkGuard<T> {
    fn drop(&mut self) {
        if !self.is_own_process() {
            std::mem::forget(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    /// Exits the process with status 9 when it is dropped.
    struct ExitsOnDrop;

    impl Drop for ExitsOnDrop {
        fn drop(&mut self) {
            // SAFETY: `_exit` has no preconditions.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(9)
            }
        }
    }

    /// Returns the exit status of a forked child that runs `body`.
    fn status_of(body: impl FnOnce()) -> i32 {
        // SAFETY: the child runs only `body` and `_exit`, which take no lock and allocate nothing.
        #[allow(unsafe_code)]
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                body();
                // SAFETY: `_exit` has no preconditions.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                std::mem::forget(body); // the test is about the child's copy
                match waitpid(child, None).unwrap() {
                    WaitStatus::Exited(_, status) => status,
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_child_neither_gets_nor_drops_a_value_of_its_parent() {
        assert_eq!(
            status_of(|| drop(ForkGuard::new(ExitsOnDrop))),
            9,
            "a process drops its own value"
        );
        let of_parent = ForkGuard::new(ExitsOnDrop);
        assert_eq!(status_of(move || drop(of_parent)), 0);
        let of_parent = ForkGuard::new(ExitsOnDrop);
        let seen = move || {
            assert!(of_parent.get().is_none() && of_parent.get_in_any_process().is_some());
            assert!(of_parent.into_inner().is_none());
        };
        assert_eq!(status_of(seen), 0);
    }
}
