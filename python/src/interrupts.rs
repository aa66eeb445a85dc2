//! Blocking calls that signals such as Ctrl-C interrupt. They release the GIL and return to Python
//! at short intervals to run signal handlers. If a handler raises, the call is cancelled, so that its
//! thread ends, too, whatever server it waits for.

use crate::error::raised;
use pyo3::prelude::*;
use ringload::{Cancellation, Error, ErrorKind, Loader, Result};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How often a blocking call looks for signals.
pub(crate) const SIGNAL_INTERVAL: Duration = Duration::from_millis(20);
/// How long an interrupted call waits for its thread, which is cancelled and has to tidy up.
const END_TIMEOUT: Duration = Duration::from_millis(50);

/// Runs `work`, a call of `loader`, on a thread of its own and waits for its result. If a signal handler
/// raises, the call is cancelled, and its result is dropped.
///
/// # Errors
/// The errors of `work`, and the exception of a signal handler.
pub(crate) fn wait_for<T: Send + 'static>(
    py: Python<'_>,
    loader: &Loader,
    work: impl FnOnce(Loader) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = sync_channel(1);
    let cancellation = Cancellation::new();
    let loader = loader.clone().cancellation(&cancellation);
    let body = move || {
        // The receiver is gone after an interrupt.
        let _ = sender.send(work(loader));
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
            Err(RecvTimeoutError::Timeout) => {
                if let Err(signal) = py.check_signals() {
                    cancellation.cancel();
                    // What the call has loaded is dropped, as nobody gets it.
                    py.detach(move || drop(receiver.recv_timeout(END_TIMEOUT)));
                    return Err(signal);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let bug = Error::new(ErrorKind::Io, "a thread panicked; this is a bug");
                return Err(raised(py, &bug));
            }
        }
    }
}
