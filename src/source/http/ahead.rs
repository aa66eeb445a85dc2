//! Connections that are opened ahead, while the header of an object is read: the first request for
//! each range then takes one round trip, without those of TCP and TLS.
//!
//! A request that finds no idle connection takes one of these, and waits for it if it is still being
//! made. Those that nobody takes are closed after [`AHEAD_MAX`], with the client, or when they are in
//! the way of others.

use super::origin::ServerOrigin;
use super::stream::Stream;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot::{Receiver, Sender, channel};
use tokio::time::Instant;

/// How long a connection waits for its first request.
pub(super) const AHEAD_MAX: Duration = Duration::from_secs(10);

/// The connections of a client that are opened ahead.
#[derive(Default)]
pub(super) struct Ahead {
    opening: Mutex<HashMap<ServerOrigin, Vec<Opening>>>,
}

/// A connection that is being made, or was made and waits.
struct Opening {
    begun: Instant,
    stream: Receiver<Stream>,
}

impl Ahead {
    /// Adds as many connections to `origin` as are missing from `wanted`. Each is sent once it is made.
    pub fn add(&self, origin: &ServerOrigin, wanted: usize) -> Vec<Sender<Stream>> {
        let mut opening = self.opening.lock();
        let of_origin = opening.entry(origin.clone()).or_default();
        let begun = Instant::now();
        let missing = wanted.saturating_sub(of_origin.len());
        let add = |_| {
            let (sender, stream) = channel();
            of_origin.push(Opening { begun, stream });
            sender
        };
        (0..missing).map(add).collect()
    }

    /// Takes a connection to `origin` for the runtime of the caller, and waits until it is made. `None`
    /// if there is none, or it could not be made.
    pub async fn take(&self, origin: &ServerOrigin) -> Option<Stream> {
        loop {
            let oldest = {
                let mut opening = self.opening.lock();
                let of_origin = opening.get_mut(origin).filter(|them| !them.is_empty())?;
                // Those that are made come first.
                let made = of_origin.iter().position(|it| !it.stream.is_empty());
                of_origin.remove(made.unwrap_or_default())
            };
            if oldest.begun.elapsed() < AHEAD_MAX
                && let Ok(mut stream) = oldest.stream.await
                && stream.is_quiet()
                && stream.enter_runtime().is_ok()
            {
                return Some(stream);
            }
        }
    }

    /// The number of connections to `origin` that are being made, or were made and wait.
    pub fn len(&self, origin: &ServerOrigin) -> usize {
        self.opening.lock().get(origin).map_or(0, Vec::len)
    }

    /// Closes the connections to `origin`.
    pub fn close(&self, origin: &ServerOrigin) {
        self.opening.lock().remove(origin);
    }

    /// Closes the connections that have waited for too long.
    pub fn close_old(&self) {
        self.opening.lock().retain(|_, of_origin| {
            of_origin.retain(|opening| opening.begun.elapsed() < AHEAD_MAX);
            !of_origin.is_empty()
        });
    }
}
