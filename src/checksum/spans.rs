//! Computes the CRC of a whole from the CRCs of its ranges, in any order.
//!
//! Adjacent ranges are combined at once, so at most one more span is kept than there are gaps.

use super::crc::Crc;
use std::collections::BTreeMap;

/// The CRCs of the spans of a whole that were seen; no two of them touch.
#[derive(Clone)]
pub(crate) struct CrcSpans {
    crc: Crc,
    /// The spans by the offset of their first byte.
    spans: BTreeMap<u64, Span>,
}

#[derive(Clone, Copy)]
struct Span {
    len: u64,
    crc: u64,
}

impl CrcSpans {
    /// Creates an empty set of spans.
    pub fn new(crc: Crc) -> Self {
        Self { crc, spans: BTreeMap::new() }
    }

    /// Adds the `crc` of the `len` bytes from `offset`. Ignores a range of which any byte was seen
    /// before: loads read each byte once, and a repeated byte must not count twice.
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

    /// The CRC of all `len_bytes`, if they were all seen.
    pub fn complete(&self, len_bytes: u64) -> Option<u64> {
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
