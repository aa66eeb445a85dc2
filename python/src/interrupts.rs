//! Blocking calls that signals such as Ctrl-C interrupt. They release the GIL and return to Python
//! at short intervals to run signal handlers.

use crate::error::raised;
use pyo3::prelude::*;
use ringload::{Error, ErrorKind, Result};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How often a blocking call looks for signals.
pub(crate) const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of its own and waits for its result. If a signal handler raises, this
/// returns at once; the work then runs to its end, and its result is dropped.
///
/// # Errors
/// The errors of `work`, and the exception of a signal handler.
pub(crate) fn wait_for<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = sync_channel(1);
    let body = move || {
        // The receiver is gone after an interrupt.
        let _ = sender.send(work());
    };
    let thread = std::thread::Builder::new().name("ringload-call".to_owned());
    thread.spawn(body).map_err(|e| raised(py, &Error::from_io("start a thread", e)))?;
    loop {
        let result;
        (receiver, result) = py.detach(move || {
            let result = receiver.recv_timeout(SIGNAL_INTERVAL);
            (receiver, result)
        });
        match result {
            Ok(outcome) => return outcome.map_err(|error| raised(py, &error)),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                let bug = Error::new(ErrorKind::Io, "a thread panicked; this is a bug");
                return Err(raised(py, &bug));
            }
        }
    }
}
