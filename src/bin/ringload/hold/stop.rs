//! Waits for Ctrl-C and SIGTERM.
//!
//! The signals are blocked in all threads, and a thread of its own takes them. It cancels what the
//! command is loading, and wakes the command if it waits.

use crate::failure::Outcome;
use crate::streams::is_ignored;
use nix::sys::signal::{SigSet, Signal};
use ringload::internals::spawn;
use ringload::{Cancellation, Error};
use std::io;
use std::sync::mpsc::{self, Receiver};

/// Whether the process was told to stop.
pub struct Stop {
    cancellation: Cancellation,
    /// Its sender is dropped when a signal has arrived.
    stopped: Receiver<()>,
}

impl Stop {
    /// Takes the signals from now on, except for one that the process was started to ignore. To be
    /// called while the process has one thread.
    ///
    /// # Errors
    /// When the system permits no further thread.
    pub fn on_signals() -> Outcome<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .filter(|&signal| !is_ignored(signal as i32))
            .collect();
        let failed = |errno| Error::from_io("block signals", io::Error::from(errno));
        signals.thread_block().map_err(failed)?;
        let cancellation = Cancellation::new();
        let (sender, stopped) = mpsc::channel();
        let cancelled = cancellation.clone();
        spawn("ringload-signals", move || {
            // The only error is a set of signals that the kernel does not know.
            let _ = signals.wait();
            cancelled.cancel();
            drop(sender);
        })?;
        Ok(Self { cancellation, stopped })
    }

    /// Is cancelled when a signal arrives.
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Whether a signal has arrived.
    pub fn was_requested(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Blocks until a signal arrives.
    pub fn wait(&self) {
        // Nothing is ever sent: the end of the sender is the news.
        let _ = self.stopped.recv();
    }
}
