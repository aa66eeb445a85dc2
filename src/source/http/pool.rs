//! Connections that wait for their next request. A pool belongs to one runtime, as its sockets do.

use super::exchange::Stream;
use http::Uri;
use std::collections::HashMap;
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

/// The idle connections of one runtime.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<Origin, Vec<(Stream, Instant)>>>,
}

impl Pool {
    /// The connection to `origin` that was used last, if it is not too old.
    pub(super) fn take(&self, origin: &Origin) -> Option<Stream> {
        let mut idle = self.lock();
        let (stream, since) = idle.get_mut(origin)?.pop()?;
        if since.elapsed() < IDLE_MAX {
            return Some(stream);
        }
        // The others are older still.
        idle.remove(origin);
        None
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, origin: &Origin, stream: Stream) {
        self.lock().entry(origin.clone()).or_default().push((stream, Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Vec<(Stream, Instant)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
