//! The end of the interpreter, which may come in mid-load.
//!
//! Whatever still refers to a stream then may never let it go: a thread that waits for a tensor, a
//! cycle, another module. So when the end begins ([`end`] is registered with `atexit`), all loads are
//! stopped, and no thread of theirs reads, or talks to a GPU's driver, while the process is taken
//! down. (A thread of Python that wants the interpreter back after its end is stopped by PyO3.)

use crate::stream::Shared;
use pyo3::prelude::*;
use ringload::internals::ForkGuard;
use std::sync::{Mutex, PoisonError, Weak};

/// The streams there are. Locked by who has the interpreter alone: so it never is while another
/// thread forks.
static STREAMS: Mutex<Vec<ForkGuard<Weak<Shared>>>> = Mutex::new(Vec::new());

/// Remembers a stream, to stop it when the interpreter ends.
pub(crate) fn remember(stream: Weak<Shared>) {
    let mut streams = STREAMS.lock().unwrap_or_else(PoisonError::into_inner);
    // Those of a parent process are the parent's: here they would wait for threads that are not there.
    streams.retain(|stream| stream.get().is_some_and(|stream| stream.strong_count() > 0));
    streams.push(ForkGuard::new(stream));
}

/// Stops all loads, as the interpreter ends. For `atexit`.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) {
    let streams = std::mem::take(&mut *STREAMS.lock().unwrap_or_else(PoisonError::into_inner));
    py.detach(|| {
        for stream in streams.iter().filter_map(|stream| stream.get()?.upgrade()) {
            stream.close();
        }
    });
}
