//! What the store counts, and how a session asks for it: `GET /.counts`, which starts the counts anew.

use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// The path of the counts.
pub const PATH: &str = "/.counts";

/// What happened since the counts were read last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub requests: u64,
    /// The requests that were refused with 503.
    pub refused: u64,
    /// The most connections that were open at a time.
    pub connections: u64,
    /// The bytes of files that were sent. Records of before this was counted have none.
    #[serde(default)]
    pub sent_bytes: u64,
}

/// The present counts.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Cell<Counts>,
    open: Cell<u64>,
}

impl Counters {
    /// Counts a request.
    pub fn request(&self) {
        let counts = self.counts.get();
        self.counts.set(Counts { requests: counts.requests + 1, ..counts });
    }

    /// Counts a request that is refused.
    pub fn refused(&self) {
        let counts = self.counts.get();
        self.counts.set(Counts { refused: counts.refused + 1, ..counts });
    }

    /// Counts bytes of a file that were sent.
    pub fn sent(&self, bytes: u64) {
        let counts = self.counts.get();
        self.counts.set(Counts { sent_bytes: counts.sent_bytes + bytes, ..counts });
    }

    /// Counts a connection that was opened. It counts from its first request on.
    pub fn opened(&self) {
        let (open, counts) = (self.open.get() + 1, self.counts.get());
        self.open.set(open);
        self.counts.set(Counts { connections: counts.connections.max(open), ..counts });
    }

    /// Counts a connection that was closed.
    pub fn closed(&self) {
        self.open.set(self.open.get() - 1);
    }

    /// The counts, which begin anew.
    pub fn take(&self) -> Counts {
        self.counts.replace(Counts { connections: self.open.get(), ..Counts::default() })
    }
}
