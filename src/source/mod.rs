//! Where a shard's bytes come from.
//!
//! A [`Source`] is one object of known length: a local file now, an HTTP object later. It is
//! shared by all engines. For reading, each engine asks it for a [`Reader`] of its own, which
//! lives on that engine's thread and does *one attempt* a call: it may come back short, it may
//! fail. What follows from that (resume, retry, downgrade, give up) is the engine's decision and
//! is written once, in `engine::fill`. Faults can therefore be injected through these same two
//! traits, and the tests do so.
//!
//! ```text
//! Source (Send + Sync, one a shard) --open--> Reader (one an engine)
//!                                                |
//!                      read_at(offset, Window) --+--> (Attempt, Window)
//! ```

#[allow(unsafe_code)]
mod backend;
mod cache_layer;
mod counters;
mod file;
pub(crate) mod http;
#[cfg(test)]
pub(crate) mod memory;
mod object;
mod opener;
mod residency;
mod stop;
pub(crate) mod store;

pub use backend::{Backend, BackendKind};
pub(crate) use cache_layer::{CacheLayer, Remote};
pub use counters::LoadCounters;
pub use file::{DirectFile, FileSource};
pub(crate) use http::CONNECTIONS_MAX;
pub use object::Check;
pub(crate) use object::{Identity, ObjectSource};
pub(crate) use opener::Opener;
pub use residency::resident_bytes;
pub use stop::Stop;
pub(crate) use stop::stopped;
pub(crate) use store::Depth;

use crate::error::Result;
use crate::location::Location;
use crate::options::ReadPath;
use crate::ring::{Mapping, Window};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// A future of an engine's thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// One object that bytes are read from: a shard of a checkpoint, or any file.
pub trait Source: Send + Sync {
    /// What kind of source it is, in a word, for metrics.
    fn kind(&self) -> &'static str;

    /// Where it is, for messages.
    fn location(&self) -> &Location;

    /// Its length in bytes, as seen when it was opened.
    fn len_bytes(&self) -> u64;

    /// Whether reading it is waiting for a network more than anything else.
    fn is_remote(&self) -> bool {
        false
    }

    /// What offsets, lengths and addresses should be multiples of; a power of two, 1 if it does
    /// not matter. Memory for an extent is laid out congruent to the source's offsets modulo this.
    fn block_bytes(&self) -> usize;

    /// Fills `into` from `offset`, blocking. For the small reads of opening a checkpoint.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the source ends before `into` is full.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// What checks all its bytes in one load, where that was asked for when it was opened. The bytes
    /// read so far are in it; those to come are given to it by the readers that have it.
    fn check(&self) -> Option<Arc<Check>> {
        None
    }

    /// A reader for one engine, which gives it `access`.
    ///
    /// # Errors
    /// When the source cannot be opened for reading.
    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>>;

    /// The file that holds all bytes of an object once the local file cache has all of them; `None`
    /// for a source that is not cached. The file exists if and only if it is complete.
    fn cached_file(&self) -> Option<PathBuf> {
        None
    }

    /// The whole source mapped into memory, where it is a file.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the source cannot be mapped.
    fn map(&self) -> Result<Mapping>;

    /// The source as a file that a device reads by itself, opened anew for direct reads.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where it is no file or has no direct reads;
    /// [`Changed`](crate::ErrorKind::Changed) where it is not what was opened.
    fn direct_file(&self) -> Result<DirectFile> {
        let sentence = format!("{} is not a local file", self.location());
        Err(crate::Error::new(crate::ErrorKind::Unsupported, sentence))
    }

    /// Fails if the source is no longer what was opened (its length or identity changed).
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorKind::Changed), naming what changed.
    fn check_unchanged(&self) -> Result<()>;
}

/// What an engine gives its readers. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    /// How files are read.
    pub backend: Backend,
    /// How the caller wants files to be read.
    pub path: ReadPath,
    /// Says when the load is stopped: a wait for a server ends with it.
    pub stop: Arc<Stop>,
    /// Where what had to be asked for again is counted.
    pub counters: Arc<LoadCounters>,
    /// What the source's bytes are given to, where they are to be checked.
    pub check: Option<Arc<Check>>,
    /// The engine's idle connections.
    pub(crate) pool: Arc<http::Pool>,
}

impl Access {
    /// What an engine with `backend` gives its readers.
    pub fn new(
        backend: Backend,
        path: ReadPath,
        stop: Arc<Stop>,
        counters: Arc<LoadCounters>,
    ) -> Self {
        Self { backend, path, stop, counters, check: None, pool: Arc::default() }
    }

    /// The same for a source whose bytes are given to `check`.
    pub(crate) fn checked_by(&self, check: Option<Arc<Check>>) -> Self {
        Self { check, ..self.clone() }
    }
}

/// How the bytes of one attempt were brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Via {
    /// O_DIRECT: from the device into the destination.
    Direct,
    /// Through the page cache, copied by the kernel.
    Buffered,
    /// The page cache itself, mapped.
    Mapped,
    /// Over HTTP, from a socket into the destination.
    Http,
    /// By GPUDirect Storage, from the device into the memory of a GPU.
    Gds,
}

impl Via {
    /// The word used in summaries and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Direct => "direct",
            Via::Buffered => "buffered",
            Via::Mapped => "mapped",
            Via::Http => "http",
            Via::Gds => "gds",
        }
    }
}

/// What one attempt brought.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Bytes that are now in the window, from its front; 0 only at the end of the source.
    pub bytes: usize,
    /// How they came.
    pub via: Via,
}

/// Reads one source on one engine's thread.
pub trait Reader {
    /// One attempt to fill `window`'s [unfilled part](Window::unfilled_len) with the bytes at `offset`.
    ///
    /// The window travels with the operation, so that memory which the kernel may still write to
    /// is never freed with a future; it comes back with the outcome.
    fn read_at<'a>(
        &'a self,
        window: Window,
        offset: u64,
    ) -> LocalFuture<'a, (io::Result<Attempt>, Window)>;

    /// The rung that this reader could not start on, if so: told once, in the summary.
    fn refused(&self) -> Option<Downgrade> {
        None
    }

    /// How many rungs it has gone down. A read that was refused when it had gone down fewer than
    /// now is to be asked again: it was in flight while another one's refusal was acted upon.
    fn steps_down(&self) -> usize;

    /// Says that `window` is filled with what stands at `offset`. A reader that keeps what it read
    /// shares the window's bytes here.
    fn filled(&self, _window: &mut Window, _offset: u64) {}

    /// Takes the next rung down after `refusal`; `None` when there is none left.
    fn downgrade(&self, refusal: &io::Error) -> Option<Downgrade>;
}

/// A step down the ladder, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Downgrade {
    /// What was wanted.
    pub from: &'static str,
    /// What is used instead.
    pub to: &'static str,
    /// Why.
    pub why: String,
}
