//! The CRC of an object from those of its ranges, in whatever order they come.
//!
//! Neighbours are combined as soon as both are there, so what is kept is one entry for each gap.

use crate::checksum::Crc;
use std::collections::BTreeMap;

/// The CRCs of the parts of an object that were seen; no two of them touch.
#[derive(Clone)]
pub(super) struct Spans {
    crc: Crc,
    /// By where they begin.
    spans: BTreeMap<u64, Span>,
}

#[derive(Clone, Copy)]
struct Span {
    len: u64,
    crc: u64,
}

impl Spans {
    /// Nothing seen yet.
    pub fn new(crc: Crc) -> Self {
        Self { crc, spans: BTreeMap::new() }
    }

    /// Takes in the `crc` of the `len` bytes from `offset`, unless some of them were seen already:
    /// loads read each byte once, and one that comes again must not count twice.
    pub fn add(&mut self, offset: u64, len: u64, crc: u64) {
        let end = offset + len;
        let before = self.spans.range(..end).next_back().map(|(&start, &span)| (start, span));
        if len == 0 || before.is_some_and(|(start, span)| start + span.len > offset) {
            return;
        }
        let (mut start, mut whole) = (offset, Span { len, crc });
        if let Some((left, span)) = before.filter(|(left, span)| left + span.len == offset) {
            (start, whole) = (left, self.joined(span, whole));
        }
        if let Some(right) = self.spans.remove(&end) {
            whole = self.joined(whole, right);
        }
        self.spans.insert(start, whole);
    }

    /// The CRC of all `len_bytes`, once they were seen.
    pub fn of_all(&self, len_bytes: u64) -> Option<u64> {
        self.spans.get(&0).filter(|span| span.len == len_bytes).map(|span| span.crc)
    }

    fn joined(&self, left: Span, right: Span) -> Span {
        let crc = self.crc.combined(left.crc, right.crc, right.len);
        Span { len: left.len + right.len, crc }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.spans.len()
    }
}
