//! What is of use only in the process that made it: `fork` copies memory, but no threads.
//!
//! In a child, a load has no engines, a lock may be held by a thread that is not there, and dropping
//! would wait for it. What is wrapped here is not there for a child to take, and not dropped in it.
//! Bindings of languages whose users fork wrap what they hand out.

use std::process;

/// A value of the process that made it.
#[derive(Debug)]
pub struct OfProcess<T> {
    /// Taken on drop alone.
    value: Option<T>,
    process: u32,
}

impl<T> OfProcess<T> {
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

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(self.value.take());
        }
    }
}
