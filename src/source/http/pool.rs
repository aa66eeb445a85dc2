//! Idle connections. A pool belongs to one runtime, as its sockets do.

use super::body::Body;
use super::socket::Stream;
use crate::sync::Mutex;
use http::Uri;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use tokio::time::Instant;

/// Connections that were idle for longer are not reused, as servers close them (S3 after 20 s).
const IDLE_MAX: Duration = Duration::from_secs(15);

/// The server that a connection leads to: scheme, host and port. Its text contains no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerOrigin(String);

impl ServerOrigin {
    /// The origin of an absolute `uri`.
    pub fn of(uri: &Uri) -> Self {
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        Self(format!("{scheme}://{host}:{port}"))
    }
}

impl fmt::Display for ServerOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the server has neither closed the connection nor sent anything since its last response.
/// Such bytes would be taken for the next response. Not checked for TLS, which sends messages of
/// its own.
fn is_quiet(stream: &Stream) -> bool {
    let Stream::Http(tcp) = stream else { return true };
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(tcp.as_fd().as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
}

/// The idle connections of one runtime.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<ServerOrigin, Vec<(Stream, Instant)>>>,
}

impl Pool {
    /// Takes the connection to `origin` that was used last, unless it is too old or not quiet.
    pub(super) fn take(&self, origin: &ServerOrigin) -> Option<Stream> {
        let mut idle = self.idle.lock();
        let of_origin = idle.get_mut(origin)?;
        while let Some((stream, since)) = of_origin.pop() {
            if since.elapsed() >= IDLE_MAX {
                of_origin.clear(); // all others are older
            } else if is_quiet(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps the connection of a response for the next request, if it can be reused.
    pub(super) fn keep(&self, origin: &ServerOrigin, body: Body) {
        if let Some(stream) = body.into_connection() {
            self.idle.lock().entry(origin.clone()).or_default().push((stream, Instant::now()));
        }
    }
}
