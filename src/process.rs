//! What is of use only in the process that made it: `fork` copies memory, but no threads.
//!
//! In a child, a load has no engines, a lock may be held by a thread that is not there, and dropping
//! would wait for it. What is wrapped here is not there for a child to take, and not dropped in it.
//! Bindings of languages whose users fork wrap what they hand out.

use std::process;

/// A value of the process that made it.
#[derive(Debug)]
pub struct ForkGuard<T> {
    /// Taken on drop alone.
    value: Option<T>,
    process: u32,
}

impl<T> ForkGuard<T> {
    /// `value` of this process.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), process: process::id() }
    }

    /// Whether this is the process that made it.
    pub fn is_here(&self) -> bool {
        process::id() == self.process
    }

    /// The value; `None` in any other process.
    pub fn here(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.is_here())
    }

    /// The value, also in another process: for what needs no thread and no lock.
    pub fn anywhere(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The value itself; in any other process it is forgotten.
    pub fn into_here(mut self) -> Option<T> {
        let value = self.value.take()?;
        if self.is_here() {
            return Some(value);
        }
        std::mem::forget(value);
        None
    }
}

impl<T> Drop for ForkGuard<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    /// Ends the process in a way of its own when it is dropped.
    struct Ending;

    impl Drop for Ending {
        fn drop(&mut self) {
            // SAFETY: it has no preconditions.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(9)
            }
        }
    }

    /// The exit status of a forked child that does this.
    fn status_of(body: impl FnOnce()) -> i32 {
        // SAFETY: the child does nothing but what is here: no lock, no allocation.
        #[allow(unsafe_code)]
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                body();
                // SAFETY: it has no preconditions.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                std::mem::forget(body); // what the child has of it is what is tested
                match waitpid(child, None).unwrap() {
                    WaitStatus::Exited(_, status) => status,
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_child_neither_gets_nor_drops_what_is_its_parent_s() {
        assert_eq!(status_of(|| drop(ForkGuard::new(Ending))), 9, "its own it drops");
        let of_parent = ForkGuard::new(Ending);
        assert_eq!(status_of(move || drop(of_parent)), 0);
        let of_parent = ForkGuard::new(Ending);
        let seen = move || {
            assert!(of_parent.here().is_none() && of_parent.anywhere().is_some());
            assert!(of_parent.into_here().is_none());
        };
        assert_eq!(status_of(seen), 0);
    }
}
