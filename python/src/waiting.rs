//! Waiting so that Ctrl-C ends it: in slices, without the interpreter, with a look for signals between.

use crate::error::raised;
use pyo3::prelude::*;
use ringload::{Error, ErrorKind, Result};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How long a signal may go unseen.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of its own and waits for it. A signal whose handler raises ends the waiting;
/// the work then goes on to its end, and what comes of it is dropped.
///
/// # Errors
/// Those of `work`, and what a signal's handler raises.
pub(crate) fn wait_for<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (done, waiting) = sync_channel(1);
    let body = move || {
        // Nobody may wait any more.
        let _ = done.send(work());
    };
    let thread = std::thread::Builder::new().name("ringload-call".to_owned());
    thread.spawn(body).map_err(|e| raised(py, &Error::from_io("start a thread", e)))?;
    let mut waiting = waiting;
    loop {
        let (back, answer) = py.detach(move || {
            let answer = waiting.recv_timeout(SLICE);
            (waiting, answer)
        });
        waiting = back;
        match answer {
            Ok(outcome) => return outcome.map_err(|error| raised(py, &error)),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                let bug = Error::new(ErrorKind::Io, "a thread panicked; this is a bug");
                return Err(raised(py, &bug));
            }
        }
    }
}
