//! The work of a `read_into`: reads byte ranges of sources into buffers of the caller.
//!
//! Direct reads into a buffer are possible if its address is congruent to the source's offset
//! modulo the block size. The partial blocks at both ends are then read through the page cache, and
//! all full blocks between them directly. Other buffers are filled through the page cache.

use super::queue::Completion;
use super::work::{ChunkRead, ChunkRequest, NextStep, Work};
use crate::error::Result;
use crate::plan::{Chunk, ChunkSize, chunk_ends};
use crate::ring::Window;
use crate::source::Source;
use crate::sync::Mutex;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct BorrowedWork {
    reads: Mutex<VecDeque<ChunkRead>>,
    /// The indices of empty requests, which complete before anything is read.
    empty: Mutex<VecDeque<usize>>,
    /// The number of reads of each request that have not completed.
    left: Vec<AtomicUsize>,
    sources: Vec<Arc<dyn Source>>,
    /// The index of each request's source.
    source_of: Vec<usize>,
}

/// A request to read `into.len()` bytes of a source from `offset`.
pub(crate) struct BorrowedBuffer {
    pub source: usize,
    pub offset: u64,
    pub into: NonNull<[u8]>,
}

impl BorrowedWork {
    /// # Safety
    /// The buffer of each request stays valid, and nobody else accesses it, until the engines that
    /// run this work have been joined and the work is dropped.
    #[allow(unsafe_code)]
    pub unsafe fn new(
        requests: Vec<BorrowedBuffer>,
        sources: Vec<Arc<dyn Source>>,
        chunks: ChunkSize,
    ) -> Self {
        let total_bytes = requests.iter().map(|request| request.into.len() as u64).sum();
        let mut reads = VecDeque::new();
        let mut empty = VecDeque::new();
        let mut left = Vec::with_capacity(requests.len());
        let source_of = requests.iter().map(|request| request.source).collect();
        for (ticket, request) in requests.into_iter().enumerate() {
            let source = &*sources[request.source];
            let chunk_bytes = chunks.of(source, total_bytes, total_bytes);
            let ends = request.ends(source.block_bytes() as u64, chunk_bytes);
            left.push(AtomicUsize::new(ends.len()));
            if ends.is_empty() {
                empty.push_back(ticket);
            }
            let mut start = 0;
            for end in ends {
                // SAFETY: disjoint parts of the caller's memory, which this function's contract
                // covers.
                let window = unsafe { Window::lend(part(request.into, start, end)) };
                let chunk =
                    Chunk { offset_bytes: request.offset + start as u64, want_bytes: end - start };
                let source = request.source;
                let (lead_bytes, part_list) = (0, ticket);
                reads.push_back(ChunkRead { source, chunk, window, lead_bytes, part_list, ticket });
                start = end;
            }
        }
        Self { reads: Mutex::new(reads), empty: Mutex::new(empty), left, sources, source_of }
    }
}

impl BorrowedBuffer {
    /// The offsets at which the reads of this request end, relative to its start.
    fn ends(&self, block: u64, chunk_bytes: u64) -> Vec<usize> {
        let len = self.into.len() as u64;
        if len == 0 {
            return Vec::new();
        }
        let first = self.offset.next_multiple_of(block);
        let last = (self.offset + len) / block * block;
        let address = self.into.cast::<u8>().as_ptr() as u64;
        let congruent = address % block == self.offset % block;
        if !congruent || first >= last {
            return chunk_ends(self.offset, len, chunk_bytes);
        }
        let head = (first - self.offset) as usize;
        let middle = chunk_ends(first, last - first, chunk_bytes);
        let mut ends: Vec<usize> = (head > 0).then_some(head).into_iter().collect();
        ends.extend(middle.into_iter().map(|end| head + end));
        if last < self.offset + len {
            ends.push(len as usize);
        }
        ends
    }
}

/// The bytes `start..end` of `whole`, without creating a reference.
#[allow(unsafe_code)]
fn part(whole: NonNull<[u8]>, start: usize, end: usize) -> NonNull<[u8]> {
    assert!(start < end && end <= whole.len());
    // SAFETY: in bounds, as just checked.
    let first = unsafe { whole.cast::<u8>().add(start) };
    NonNull::slice_from_raw_parts(first, end - start)
}

impl Work for BorrowedWork {
    fn next(&self, _engine: usize) -> NextStep {
        if let Some(index) = self.empty.lock().pop_front() {
            return NextStep::Deliver(Completion::Request { index });
        }
        let read = self.reads.lock().pop_front();
        read.map_or(NextStep::Finished, NextStep::Read)
    }

    fn bind(&self, _engine: usize, _request: ChunkRequest) -> NextStep {
        NextStep::Finished // its reads have memory, so there is no such range
    }

    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Completion>> {
        drop(window);
        let last = self.left[ticket].fetch_sub(1, Ordering::AcqRel) == 1;
        if !last {
            return Ok(None);
        }
        self.sources[self.source_of[ticket]].check_unchanged()?;
        Ok(Some(Completion::Request { index: ticket }))
    }
}
