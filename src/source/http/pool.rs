//! Connections that wait for their next request. A pool belongs to one runtime, as its sockets do.

use super::exchange::{Body, Stream};
use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Servers close connections that are idle for long (S3 after 20 s); older ones are not tried.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// Whom a connection leads to: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin(String);

impl Origin {
    /// The origin of an absolute `uri`.
    pub fn of(uri: &Uri) -> Self {
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        Self(format!("{scheme}://{host}:{port}"))
    }

    /// As text, without anything secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the server has sent nothing since its last answer: what it sent beyond that one would be
/// taken for the next, and where it has closed the connection nothing more is answered. TLS sends
/// messages of its own.
fn is_quiet(stream: &Stream) -> bool {
    let MaybeHttpsStream::Http(tcp) = stream else { return true };
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(tcp.as_fd().as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
}

/// The idle connections of one runtime.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<Origin, Vec<(Stream, Instant)>>>,
}

impl Pool {
    /// The connection to `origin` that was used last, if it is not too old and has stayed quiet.
    pub(super) fn take(&self, origin: &Origin) -> Option<Stream> {
        let mut idle = self.lock();
        let of_origin = idle.get_mut(origin)?;
        while let Some((stream, since)) = of_origin.pop() {
            if since.elapsed() >= IDLE_MAX {
                of_origin.clear(); // the others are older still
            } else if is_quiet(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps the connection of an answer for the next request, if it can serve one.
    pub(super) fn keep(&self, origin: &Origin, body: Body) {
        if let Some(stream) = body.into_connection() {
            self.lock().entry(origin.clone()).or_default().push((stream, Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Vec<(Stream, Instant)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
