//! Cancels calls and loads from elsewhere.
//!
//! A [`Cancellation`] is handed to a loader before its calls begin. Small requests (headers, listings,
//! credentials) end with it, and each load that was started *attaches* itself, so that it is told: it
//! then closes its rings and ends its caller's wait, and its [`Stop`] ends the waits of its engines for
//! servers, locks and memory. Reads that the kernel has begun are waited for, as they write to memory.

use super::stop::{Stop, stopped};
use crate::error::Result;
use crate::sync::Mutex;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};

/// Cancels calls and loads, from any thread. Clones are the same cancellation.
///
/// Everything that a loader of [`Loader::cancellation`](crate::Loader::cancellation) waits for ends at
/// [`cancel`](Self::cancel): names that are resolved, connections, answers and bodies of servers, waits
/// before retries, locks of other processes, memory that the caller holds. Only reads that the kernel
/// has begun are waited for, which takes milliseconds on a disk. The calls then fail with
/// [`Cancelled`](crate::ErrorKind::Cancelled).
///
/// ```no_run
/// use ringload::{Cancellation, ErrorKind, Loader};
///
/// # fn main() -> ringload::Result<()> {
/// let shutdown = Cancellation::new();
/// let loader = Loader::new().cancellation(&shutdown);
/// let loading = std::thread::spawn(move || loader.load("s3://bucket/llama-8b/"));
/// shutdown.cancel(); // when the process is told to end
/// if let Ok(Err(error)) = loading.join() {
///     assert_eq!(error.kind(), ErrorKind::Cancelled);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Cancellation(Arc<CancellationState>);

#[derive(Default)]
struct CancellationState {
    stop: Stop,
    /// What is told. Those that have ended are removed when others are added.
    attached: Mutex<Vec<Weak<dyn Cancellable>>>,
}

/// What ends when a cancellation is cancelled.
pub(crate) trait Cancellable: Send + Sync {
    /// Called at most once, from the thread that cancels. Must not wait.
    fn cancelled(&self);
}

impl Cancellation {
    /// A cancellation that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels all calls and loads that were given this cancellation, and those that will be, without
    /// waiting for them.
    pub fn cancel(&self) {
        self.0.cancelled();
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.stop.is_set()
    }

    /// Another cancellation, which is cancelled by itself or with this one.
    pub(crate) fn child(&self) -> Self {
        let child = Self::default();
        let state: Arc<dyn Cancellable> = child.0.clone();
        self.attach(&state);
        child
    }

    /// Tells `other` of the cancellation: at once if it was cancelled already.
    pub(crate) fn attach(&self, other: &Arc<dyn Cancellable>) {
        let mut attached = self.0.attached.lock();
        if !self.is_cancelled() {
            attached.retain(|other| other.strong_count() > 0);
            attached.push(Arc::downgrade(other));
            return;
        }
        drop(attached);
        other.cancelled();
    }

    /// The signal, for waits that end with it.
    pub(crate) fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// Fails if it was cancelled.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled).
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    /// `work`, which is dropped when it is cancelled.
    ///
    /// # Errors
    /// Those of `work`; [`Cancelled`](crate::ErrorKind::Cancelled).
    pub(crate) fn ending<T, F: Future<Output = Result<T>>>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T>> + use<T, F> {
        let this = self.clone();
        async move {
            this.check()?;
            this.stop().unless_stopped(work).await?
        }
    }
}

impl Cancellable for CancellationState {
    fn cancelled(&self) {
        // Set with the lock held, so that whoever is attached later sees the flag.
        let attached = {
            let mut attached = self.attached.lock();
            self.stop.set();
            std::mem::take(&mut *attached)
        };
        attached.iter().filter_map(Weak::upgrade).for_each(|other| other.cancelled());
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancellation").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_end_with_their_parent_and_not_the_other_way_round() {
        let parent = Cancellation::new();
        let [first, second] = [parent.child(), parent.child()];
        first.cancel();
        assert!(first.is_cancelled() && !second.is_cancelled() && !parent.is_cancelled());
        parent.clone().cancel();
        assert!(second.is_cancelled() && parent.is_cancelled());
        assert!(parent.child().is_cancelled(), "a call that begins later is cancelled, too");
    }

    /// A server cancels nothing for weeks, and each request has a child.
    #[test]
    fn children_that_are_gone_take_no_memory() {
        let parent = Cancellation::new();
        let kept = parent.child();
        (0..1000).for_each(|_| drop(parent.child()));
        assert!(parent.0.attached.lock().len() <= 3);
        parent.cancel();
        assert!(kept.is_cancelled());
    }
}
