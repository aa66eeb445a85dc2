//! A source in memory, for tests, whose reads can be made to fail.

use super::cancellation::Cancellation;
use super::traits::{Access, Attempt, Downgrade, ReadFuture, Reader, Source, Via};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::ring::{Mapping, Window};
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What one attempt does instead of reading all bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: the read succeeds.
    None,
    /// The read returns at most this many bytes.
    Short(usize),
    /// The read fails with this errno.
    Errno(i32),
    /// The source ends early.
    End,
}

/// Decides the fault of an attempt, given its number, offset and length.
type Script = dyn Fn(usize, u64, usize) -> Fault + Send + Sync;

/// Bytes in memory as a source.
pub(crate) struct MemorySource {
    location: Location,
    bytes: Vec<u8>,
    claimed_bytes: u64,
    block_bytes: usize,
    is_remote: bool,
    script: Box<Script>,
    attempts: AtomicUsize,
    /// Set when a reader has made a downgrade; scripts may read it.
    pub downgraded: Arc<AtomicBool>,
}

impl MemorySource {
    /// A source that never fails.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self::faulty(name, bytes, 1, |_, _, _| Fault::None)
    }

    /// A source of blocks of `block_bytes` whose attempts have the faults of `script`.
    pub fn faulty(
        name: &str,
        bytes: Vec<u8>,
        block_bytes: usize,
        script: impl Fn(usize, u64, usize) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self {
            location: Location::from(Path::new(name)),
            claimed_bytes: bytes.len() as u64,
            bytes,
            block_bytes,
            is_remote: false,
            script: Box::new(script),
            attempts: AtomicUsize::new(0),
            downgraded: Arc::default(),
        }
    }

    /// The same bytes with a wrong length.
    pub fn claiming(mut self, claimed_bytes: u64) -> Self {
        self.claimed_bytes = claimed_bytes;
        self
    }

    /// The same bytes behind a network.
    pub fn remote(self) -> Self {
        Self { is_remote: true, ..self }
    }

    fn attempt(&self, window: &mut Window, offset: u64) -> io::Result<Attempt> {
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        let rest = &self.bytes[(offset as usize).min(self.bytes.len())..];
        let asked = window.unfilled_len().min(rest.len());
        let bytes = match (self.script)(number, offset, asked) {
            Fault::None => asked,
            Fault::Short(most) => asked.min(most),
            Fault::Errno(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Fault::End => 0,
        };
        window.unfilled_mut()[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(Attempt { bytes, via: Via::Buffered })
    }
}

impl Source for MemorySource {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn len_bytes(&self) -> u64 {
        self.claimed_bytes
    }

    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn is_remote(&self) -> bool {
        self.is_remote
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64, _: &Cancellation) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let part = self.bytes.get(from..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn reader(self: Arc<Self>, _: &Access) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MemoryReader { source: self, stepped: Cell::new(false) }))
    }

    fn map(&self) -> Result<Mapping> {
        Err(Error::new(ErrorKind::Unsupported, "memory cannot be mapped"))
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
}

/// One engine's reader, which counts its own downgrades as a file's reader does.
struct MemoryReader {
    source: Arc<MemorySource>,
    stepped: Cell<bool>,
}

impl Reader for MemoryReader {
    fn read_at(&self, mut window: Window, offset: u64) -> ReadFuture<'_> {
        Box::pin(async move {
            // Read tasks interleave, as they do with a disk.
            tokio::task::yield_now().await;
            let outcome = self.source.attempt(&mut window, offset);
            tokio::task::yield_now().await;
            (outcome, window)
        })
    }

    fn downgrade_count(&self) -> usize {
        usize::from(self.stepped.get())
    }

    fn downgrade(&self, refusal: &io::Error) -> Option<Downgrade> {
        self.source.downgraded.store(true, Ordering::Relaxed);
        let first = !self.stepped.replace(true);
        first.then(|| Downgrade { from: "direct", to: "buffered", why: refusal.to_string() })
    }
}
