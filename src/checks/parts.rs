//! The CRC-64/NVME of parts of files whose bytes arrive in any order.
//!
//! ```text
//! parts:  | header |  a  |       b        |c|d|
//! reads:  |     1     |     2     |     3     |     of a part that is not whole in a read, the CRCs
//!                                                   of its pieces are kept until the last one came
//! ```
//!
//! The parts of a list are disjoint and in ascending order; bytes between them are ignored. A load has a
//! list for each of its sources, and a `read_into` one for each request, because two requests may ask
//! for the same bytes.

use crate::checksum::{Crc, CrcSpans, crc64_nvme};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub offset: u64,
    pub bytes: u64,
}

/// Takes the CRCs of parts.
pub(crate) trait PartSink: Send + Sync {
    /// Takes the CRC of the part at `index` of `list`.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if another CRC was expected.
    fn take(&self, list: usize, index: usize, crc: u64) -> Result<()>;
}

/// Computes the CRCs of the parts of a load.
pub(crate) struct PartChecks {
    lists: Vec<Vec<Part>>,
    /// The pieces that were seen of parts, by list and index.
    incomplete: Mutex<HashMap<(usize, usize), CrcSpans>>,
    taken: AtomicU64,
    sink: Box<dyn PartSink>,
}

impl PartChecks {
    /// The checks of `lists`, whose CRCs `sink` takes. Empty parts have no bytes that could be wrong, so
    /// they pass from the start, and the sink does not get them.
    pub fn new(lists: Vec<Vec<Part>>, sink: Box<dyn PartSink>) -> Self {
        let empty = lists.iter().flatten().filter(|part| part.bytes == 0).count() as u64;
        Self { lists, incomplete: Mutex::default(), taken: AtomicU64::new(empty), sink }
    }

    /// Adds the `bytes` from `offset` to the parts of `list`. Each byte is added once.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn add(&self, list: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(parts) = self.lists.get(list) else { return Ok(()) };
        let end = offset + bytes.len() as u64;
        let first = parts.partition_point(|part| part.offset + part.bytes <= offset);
        for (index, part) in parts.iter().enumerate().skip(first) {
            if part.offset >= end {
                break;
            }
            let (from, to) = (part.offset.max(offset), (part.offset + part.bytes).min(end));
            if from >= to {
                continue; // an empty part
            }
            let crc = crc64_nvme(&bytes[(from - offset) as usize..(to - offset) as usize]);
            let whole = match to - from == part.bytes {
                true => Some(crc),
                false => self.joined((list, index), part, from, to - from, crc),
            };
            if let Some(crc) = whole {
                self.sink.take(list, index, crc)?;
                self.taken.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Adds the CRC of a piece. Returns that of the part if it was the last piece.
    fn joined(
        &self,
        key: (usize, usize),
        part: &Part,
        from: u64,
        bytes: u64,
        crc: u64,
    ) -> Option<u64> {
        let mut incomplete = self.incomplete.lock();
        let spans = incomplete.entry(key).or_insert_with(|| CrcSpans::new(Crc::CRC64_NVME));
        spans.add(from - part.offset, bytes, crc);
        let whole = spans.complete(part.bytes)?;
        incomplete.remove(&key);
        Some(whole)
    }

    /// How many parts passed.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Fails unless all parts passed.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn result(&self) -> Result<()> {
        let parts = self.lists.iter().map(Vec::len).sum::<usize>() as u64;
        if self.taken() == parts {
            return Ok(());
        }
        let left = parts.saturating_sub(self.taken());
        let sentence = format!("{left} parts of files could not be verified; this is a bug");
        Err(Error::new(ErrorKind::Corrupt, sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[derive(Default, Clone)]
    struct Taken(Arc<Mutex<BTreeMap<(usize, usize), u64>>>);

    impl PartSink for Taken {
        fn take(&self, list: usize, index: usize, crc: u64) -> Result<()> {
            let before = self.0.lock().insert((list, index), crc);
            assert_eq!(before, None, "a part was taken twice");
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Reads end anywhere and complete in any order.
        #[test]
        fn parts_have_their_crcs_however_reads_are_cut(
            lens in proptest::collection::vec((0_u64..400, 0_u64..3), 1..12),
            cuts in proptest::collection::vec(0_usize..4000, 0..12),
            seed in any::<u64>(),
        ) {
            let (mut parts, mut end) = (Vec::new(), 0);
            for (bytes, gap) in lens {
                parts.push(Part { offset: end + gap * 7, bytes });
                end += gap * 7 + bytes;
            }
            let content: Vec<u8> = (0..end).map(|at| (at * 31 + seed % 97) as u8).collect();
            let mut ends: Vec<_> = cuts.into_iter().map(|cut| cut.min(content.len())).collect();
            ends.extend([0, content.len()]);
            ends.sort_unstable();
            let mut reads: Vec<_> = ends.windows(2).map(|two| two[0]..two[1]).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut reads);
            let taken = Taken::default();
            let checks = PartChecks::new(vec![vec![], parts.clone()], Box::new(taken.clone()));
            for read in reads {
                checks.add(1, read.start as u64, &content[read]).unwrap();
            }
            checks.result().unwrap();
            for (index, part) in parts.iter().enumerate().filter(|(_, part)| part.bytes > 0) {
                let bytes = &content[part.offset as usize..(part.offset + part.bytes) as usize];
                let found = taken.0.lock().get(&(1, index)).copied();
                prop_assert_eq!(found, Some(crc64_nvme(bytes)));
            }
            prop_assert!(checks.incomplete.lock().is_empty());
        }
    }

    #[test]
    fn a_part_that_was_not_read_is_an_error() {
        let parts = vec![Part { offset: 8, bytes: 4 }, Part { offset: 12, bytes: 0 }];
        let checks = PartChecks::new(vec![parts], Box::new(Taken::default()));
        checks.add(0, 0, &[0; 11]).unwrap();
        assert_eq!(checks.result().unwrap_err().kind(), ErrorKind::Corrupt);
        checks.add(0, 11, &[0; 100]).unwrap();
        checks.result().unwrap();
    }
}
