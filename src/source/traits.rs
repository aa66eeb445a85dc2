//! The traits of sources and readers, and the types that their methods take and return.

use super::backend::Backend;
use super::cancellation::Cancellation;
use super::counters::LoadCounters;
use super::file::{DirectFile, MappedFile};
use super::stop::Stop;
use super::verify::ChecksumVerifier;
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::ReadPath;
use crate::ring::{Mapping, Window};
use std::any::Any;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// One attempt of a [`Reader`], on its engine's thread: the outcome, and the window.
pub type ReadFuture<'a> = Pin<Box<dyn Future<Output = (io::Result<Attempt>, Window)> + 'a>>;

/// The answer to a request of a range, or the error of the last attempt.
pub type RequestFuture<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn RangeAnswer>>> + 'a>>;

/// A server's answer to a request of a range, whose bytes were not received yet.
pub trait RangeAnswer: Any {
    /// Records that the answer waits for memory.
    fn wait(&mut self);

    /// The answer as its reader knows it.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// A file or object that bytes are read from, such as a shard of a checkpoint.
pub trait Source: Send + Sync {
    /// The kind of source, as a label for metrics: `file`, `s3`, ...
    fn kind(&self) -> &'static str;

    /// The location of the source, for messages.
    fn location(&self) -> &Location;

    /// The length in bytes when the source was opened.
    fn len_bytes(&self) -> u64;

    /// What distinguishes the bytes of the source from those of a replacement, as far as the options
    /// compare it. It is the same in every process that opened the same bytes.
    fn version(&self) -> String {
        format!("{} bytes", self.len_bytes())
    }

    /// Whether reads spend most of their time waiting for a network.
    fn is_remote(&self) -> bool {
        false
    }

    /// How many ranges may be requested at once from the source's server at present; `None` for a
    /// file.
    fn connections(&self) -> Option<usize> {
        None
    }

    /// How long the next range from the source's server should be, of a load that receives into
    /// `memory_bytes` of memory and has `left_bytes` to request, or the next read of a file; `None`
    /// where the length does not matter.
    fn range_bytes(&self, _memory_bytes: u64, _left_bytes: u64) -> Option<u64> {
        None
    }

    /// The alignment of offsets, lengths and addresses with which reads are fastest: a power of
    /// two, or 1 if alignment does not matter. The address of an extent's memory is congruent to
    /// its offset in the source modulo this.
    fn block_bytes(&self) -> usize;

    /// How many bytes of the source are in the page cache; `None` if it is not a file, or the system
    /// does not tell.
    fn cached_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether the first bytes of the source are in the page cache, as the others then probably are.
    fn begins_cached(&self) -> bool {
        false
    }

    /// Fills `into` with the bytes from `offset`, and blocks until that is done or cancelled. For
    /// the small reads of opening a checkpoint.
    ///
    /// # Errors
    /// That of a [`Cancellation`] when it is cancelled.
    /// [`io::ErrorKind::UnexpectedEof`] when the source ends before `into` is full.
    fn read_exact_at(
        &self,
        into: &mut [u8],
        offset: u64,
        cancellation: &Cancellation,
    ) -> io::Result<()>;

    /// A new verifier for the source's bytes in one load, if the source was opened for
    /// verification. It has seen the bytes read at opening. Where
    /// [`verifies_reads`](Self::verifies_reads), readers that are given the verifier add the bytes that
    /// they read; otherwise the engine does.
    fn verifier(&self) -> Option<Arc<ChecksumVerifier>> {
        None
    }

    /// Whether readers add the bytes that they read to the verifier.
    fn verifies_reads(&self) -> bool {
        false
    }

    /// A reader for the engine that `access` belongs to.
    ///
    /// # Errors
    /// When the source cannot be opened for reading.
    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>>;

    /// The file that contains all bytes of an object once the local file cache has all of them; `None`
    /// for a source that is not cached. The file exists if and only if it is complete.
    fn cached_file(&self) -> Option<PathBuf> {
        None
    }

    /// Maps the whole source into memory, if it is a file.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a source that cannot be mapped.
    fn map(&self) -> Result<Mapping>;

    /// Keeps the source's file open and maps it, so that the caller may write to the memory but not to
    /// the file.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a source that is no file or cannot be mapped.
    fn map_private(&self) -> Result<MappedFile> {
        let sentence = format!("{} is not a local file, and cannot be mapped", self.location());
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    /// Whether the bytes of the source are known never to change: those of a file that is named by its
    /// checksum.
    fn is_immutable(&self) -> bool {
        false
    }

    /// Whether touching the source's pages brings in bytes as fast as reading them does.
    fn maps_fast(&self) -> bool {
        false
    }

    /// Keeps the descriptor of a file open until the returned value is dropped, so that its name may
    /// lead elsewhere meanwhile. `None` for a source that is no file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    fn keep_open(&self) -> Result<Option<Arc<dyn Any + Send + Sync>>> {
        Ok(None)
    }

    /// Opens the source anew as a file that a device reads by itself, with direct reads.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the source is not a file or its file system has
    /// no direct reads; [`Changed`](ErrorKind::Changed) if the file was replaced or modified since
    /// it was opened.
    fn direct_file(&self) -> Result<DirectFile> {
        let sentence = format!("{} is not a local file", self.location());
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    /// Fails if the source's length or identity changed since it was opened.
    ///
    /// # Errors
    /// [`Changed`](ErrorKind::Changed), naming what changed.
    fn check_unchanged(&self) -> Result<()>;
}

/// The state of an engine that its readers use. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    /// The backend for reading files.
    pub backend: Backend,
    /// The read path that the caller requested for files.
    pub path: ReadPath,
    /// Ends waits for a server when the load is stopped.
    pub stop: Arc<Stop>,
    /// The counters of the load's readers.
    pub counters: Arc<LoadCounters>,
    /// Receives the bytes that are read, if the source is to be verified.
    pub verifier: Option<Arc<ChecksumVerifier>>,
}

impl Access {
    /// The access of an engine that reads files with `backend`.
    pub fn new(
        backend: Backend,
        path: ReadPath,
        stop: Arc<Stop>,
        counters: Arc<LoadCounters>,
    ) -> Self {
        Self { backend, path, stop, counters, verifier: None }
    }

    /// This access for a source whose bytes are added to `verifier`.
    pub(crate) fn with_verifier(&self, verifier: Option<Arc<ChecksumVerifier>>) -> Self {
        Self { verifier, ..self.clone() }
    }
}

/// How the bytes of one attempt were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Via {
    /// With O_DIRECT, from the storage device into the destination.
    Direct,
    /// Through the page cache, copied by the kernel.
    Buffered,
    /// From the page cache, mapped into memory.
    Mapped,
    /// Over HTTP, from a socket into the destination.
    Http,
    /// By GPUDirect Storage, from the storage device into GPU memory.
    Gds,
}

impl Via {
    /// The label used in summaries and metrics.
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

/// The result of one successful attempt to read.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// How many bytes were written to the beginning of the window's unfilled part; 0 only at the
    /// end of the source.
    pub bytes: usize,
    /// The path by which the bytes were read.
    pub via: Via,
}

/// Reads one source on one engine's thread.
pub trait Reader {
    /// Makes one attempt to fill `window`'s [unfilled part](Window::unfilled_len) with the bytes at
    /// `offset`.
    ///
    /// The operation owns the window and returns it with the outcome, so that memory which the
    /// kernel may still write to is never freed when a future is dropped.
    fn read_at(&self, window: Window, offset: u64) -> ReadFuture<'_>;

    /// Requests the `len` bytes at `offset`, which lie within the source, from its server, before there
    /// is memory for them. `None` for a reader that reads when it is told to.
    fn request(&self, _offset: u64, _len: usize) -> Option<RequestFuture<'_>> {
        None
    }

    /// As [`read_at`](Self::read_at), for the bytes of which `answer` is the answer of
    /// [`request`](Self::request).
    fn read_answer(
        &self,
        _answer: Box<dyn RangeAnswer>,
        window: Window,
        offset: u64,
    ) -> ReadFuture<'_> {
        self.read_at(window, offset)
    }

    /// The downgrade that took place when this reader was made, if any. The summary reports it
    /// once.
    fn initial_downgrade(&self) -> Option<Downgrade> {
        None
    }

    /// How many downgrades this reader has made. If the count has grown since a failed read began,
    /// another read caused a downgrade meanwhile, and the failed read is to be repeated.
    fn downgrade_count(&self) -> usize {
        0
    }

    /// Called when `window` is filled with the bytes at `offset`. A reader that caches the bytes
    /// shares them from the window here.
    fn filled(&self, _window: &mut Window, _offset: u64) {}

    /// Falls back to the next backend or read path after `refusal`; `None` when there is none left.
    fn downgrade(&self, _refusal: &io::Error) -> Option<Downgrade> {
        None
    }
}

/// A step along a fallback chain, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Downgrade {
    /// The backend or path that was to be used.
    pub from: &'static str,
    /// The backend or path that is used instead.
    pub to: &'static str,
    /// The reason.
    pub why: String,
}
