//! Reading the body of an answer into its memory.
//!
//! Two ways, the cheaper one where it can be had:
//!
//! - *By the kernel*: on io_uring, and without TLS, what is left of the body is read as a file is:
//!   one operation after the other owns the window, and nothing else is asked of the kernel. The
//!   socket leaves the runtime's epoll for that time. To end such a read early (the load is
//!   stopped, the server stalls) the socket is shut down, which completes it; the window comes back
//!   as always.
//! - *By the runtime*: wait until the socket is readable, then read. TLS, chunked bodies, and
//!   machines without io_uring.
//!
//! CPU-seconds a GB over loopback, bare sockets, 16 connections, medians of 3: readable-then-recv
//! 0.31, io_uring 0.24.

use super::landing::Landing;
use crate::error::errno::{ErrnoAction, action};
use crate::options::RetryLimits;
use crate::ring::Window;
use crate::source::Backend;
use crate::source::http::{Body, Broken, Failure, Origin, Watch};
use crate::source::{BackendKind, Stop, stopped};
use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::timeout;

/// How much is read from a readable socket at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Less than this is not worth taking a socket out of the runtime.
const KERNEL_BYTES_MIN: usize = 256 << 10;

/// Reads from a socket into a window behind the runtime's back.
pub(super) trait Kernel {
    /// Whether it can.
    fn is_there(&self) -> bool;

    /// Reads at most `most` bytes into the window's unfilled part; owns it until that is done.
    async fn read(
        &self,
        socket: &Arc<File>,
        window: Window,
        most: usize,
    ) -> (io::Result<usize>, Window);
}

/// Where there is only the runtime.
pub(super) struct NoKernel;

impl Kernel for NoKernel {
    fn is_there(&self) -> bool {
        false
    }

    async fn read(&self, _: &Arc<File>, window: Window, _: usize) -> (io::Result<usize>, Window) {
        (Err(io::ErrorKind::Unsupported.into()), window)
    }
}

impl Kernel for Backend {
    fn is_there(&self) -> bool {
        self.rung() != BackendKind::Pread
    }

    async fn read(
        &self,
        socket: &Arc<File>,
        window: Window,
        most: usize,
    ) -> (io::Result<usize>, Window) {
        // The offset means nothing to a socket.
        let (outcome, window) = self.read_most(socket, window, 0, most).await;
        if outcome.as_ref().is_err_and(|error| action(error) == ErrnoAction::Downgrade) {
            self.downgrade();
        }
        (outcome, window)
    }
}

/// What a body is read with.
pub(super) struct Receiver<'a, K> {
    pub kernel: &'a K,
    pub stop: &'a Stop,
    pub limits: &'a RetryLimits,
    pub origin: &'a Origin,
}

impl<K: Kernel> Receiver<'_, K> {
    /// Reads `body`, of exactly as many bytes as are left of `landing`. How far it came, the landing
    /// says, also after a failure.
    ///
    /// # Errors
    /// When the body breaks off, stalls (brings less than [`RetryLimits::STALLED_BYTES`] in
    /// [`RetryLimits::stalled`]) or goes on beyond its end, and when the load is stopped.
    pub async fn receive(
        &self,
        body: &mut Body,
        mut landing: Landing,
    ) -> (Result<(), Failure>, Landing) {
        let before = landing.mark();
        while let Some(bytes) = body.early(landing.next(PIECE_BYTES)) {
            landing.came(bytes);
        }
        let by_kernel = self.kernel.is_there() && landing.left() >= KERNEL_BYTES_MIN;
        let outcome = match by_kernel.then(|| body.detach()).flatten() {
            Some(socket) => {
                let outcome;
                (outcome, landing) = self.by_kernel(&socket, landing).await;
                if outcome.is_ok() {
                    body.attach(socket);
                }
                outcome
            }
            None => self.by_runtime(body, &mut landing).await,
        };
        let outcome = match outcome {
            Ok(()) => self.expect_end(body).await,
            failed => return (failed, landing),
        };
        if outcome.is_err() {
            landing.go_back(before); // which of its bytes are right, nobody knows
        }
        (outcome, landing)
    }

    async fn by_kernel(
        &self,
        socket: &Arc<File>,
        mut landing: Landing,
    ) -> (Result<(), Failure>, Landing) {
        let mut watch = Watch::new(self.limits, landing.got());
        while landing.left() > 0 {
            let (got, left) = (landing.got(), landing.left());
            let (read, given_up);
            (read, given_up, landing.window) = {
                let mut reading = pin!(self.kernel.read(socket, landing.window, left));
                let given_up = tokio::select! {
                    biased;
                    (read, window) = reading.as_mut() => Err((read, window)),
                    () = watch.stalled(got) => Ok(self.broken("stalled")),
                    () = self.stop.stopped() => Ok(stopped().into()),
                };
                match given_up {
                    Err((read, window)) => (read, None, window),
                    Ok(failure) => {
                        // The window is the kernel's until the read completes; now it does.
                        let _ = nix::sys::socket::shutdown(
                            std::os::fd::AsRawFd::as_raw_fd(&**socket),
                            nix::sys::socket::Shutdown::Both,
                        );
                        let (read, window) = reading.await;
                        (read, Some(failure), window)
                    }
                }
            };
            let came = self.came(read, &mut landing);
            if let Some(failure) = given_up.or(came.err()) {
                return (Err(failure), landing);
            }
        }
        (Ok(()), landing)
    }

    async fn by_runtime(&self, body: &mut Body, landing: &mut Landing) -> Result<(), Failure> {
        let mut watch = Watch::new(self.limits, landing.got());
        while landing.left() > 0 {
            let got = landing.got();
            let read = tokio::select! {
                biased;
                read = body.read(landing.next(PIECE_BYTES)) => read,
                () = watch.stalled(got) => return Err(self.broken("stalled")),
                () = self.stop.stopped() => return Err(stopped().into()),
            };
            self.came(read, landing)?;
        }
        Ok(())
    }

    /// Takes in what one read brought.
    fn came(&self, read: io::Result<usize>, landing: &mut Landing) -> Result<(), Failure> {
        match read {
            Ok(0) => Err(self.broken("truncated")),
            Ok(bytes) => {
                landing.came(bytes);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.broken("truncated"))
            }
            Err(error) => Err(Broken::passing("reset", self.broke_off()).caused_by(error).into()),
        }
    }

    /// Checks that a body whose length was not told ends where it should.
    async fn expect_end(&self, body: &mut Body) -> Result<(), Failure> {
        if body.left().is_some() {
            return Ok(()); // it was told, and looked at
        }
        let mut beyond = [0];
        match timeout(self.limits.stalled, body.read(&mut beyond)).await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(_)) => Err(self.broken("over-long")),
            _ => Err(self.broken("truncated")),
        }
    }

    fn broken(&self, word: &'static str) -> Failure {
        let origin = self.origin.as_str();
        let sentence = match word {
            "stalled" => format!("{origin} stopped sending in mid-body"),
            "over-long" => format!("{origin} sends more bytes than it said"),
            _ => self.broke_off(),
        };
        Broken::passing(word, sentence).into()
    }

    fn broke_off(&self) -> String {
        format!("{} broke off in mid-body", self.origin.as_str())
    }
}
