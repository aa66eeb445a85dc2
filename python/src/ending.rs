//! The end of the interpreter, which may come in mid-load.
//!
//! Python ends with daemon threads still running: one that wants the interpreter back then is ended in
//! the middle of whatever native code it is in. So when the end begins ([`end`] is registered with
//! `atexit`), loads are stopped, and threads that are not the ending one and wait in this module never
//! come back from there.

use crate::stream::Shared;
use pyo3::prelude::*;
use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::thread::ThreadId;

/// The thread that ends the interpreter.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// The streams there are. Locked by who has the interpreter alone: so it never is while another
/// thread forks.
static STREAMS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Remembers a stream, to stop it when the interpreter ends.
pub(crate) fn remember(stream: Weak<Shared>) {
    let mut streams = STREAMS.lock().unwrap_or_else(PoisonError::into_inner);
    streams.retain(|stream| stream.strong_count() > 0);
    streams.push(stream);
}

/// Stops the calling thread for ever if the interpreter is ending and another thread ends it. To be
/// called before asking for the interpreter.
pub(crate) fn stay_if_ending() {
    while ENDING.get().is_some_and(|ending| *ending != std::thread::current().id()) {
        std::thread::park();
    }
}

/// Stops all loads, as the interpreter ends. For `atexit`.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) {
    // What a parent process registered is the parent's; a child has its own end.
    ENDING.get_or_init(|| std::thread::current().id());
    let streams = std::mem::take(&mut *STREAMS.lock().unwrap_or_else(PoisonError::into_inner));
    py.detach(|| {
        for stream in streams.iter().filter_map(Weak::upgrade) {
            stream.close();
        }
    });
}
