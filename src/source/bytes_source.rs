//! Bytes that are in memory already, as a source: those that a cluster's object store has brought to
//! this machine, for example.
//!
//! The memory may have several parts. An engine copies from the part that has the wanted offset, up to
//! its end; the engine then asks for the rest. The source does not keep the memory, as tensors keep their
//! source: its owner does, and so does a load that reads from it.

use super::cancellation::Cancellation;
use super::traits::{Access, Attempt, ReadFuture, Reader, Source, Via};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::ring::{Mapping, Window};
use std::io;
use std::sync::{Arc, Weak};

/// A part of another owner's memory, which does not change as long as this exists.
pub type BorrowedBytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// Parts of memory, one after the other.
#[derive(Default)]
pub struct BorrowedMemory {
    /// The offset of each part, and its bytes. Ascending; no part is empty.
    parts: Vec<(u64, BorrowedBytes)>,
    len_bytes: u64,
}

impl BorrowedMemory {
    /// The bytes of `parts`, one after the other.
    pub fn new(parts: Vec<BorrowedBytes>) -> Self {
        let mut len_bytes = 0;
        let mut at_offset = |part: BorrowedBytes| {
            let offset = len_bytes;
            len_bytes += (*part).as_ref().len() as u64;
            (offset, part)
        };
        let is_some = |part: &BorrowedBytes| !(**part).as_ref().is_empty();
        let parts = parts.into_iter().filter(is_some).map(&mut at_offset).collect();
        Self { parts, len_bytes }
    }

    /// The length of all parts.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The bytes from `offset` to the end of the part that has them; none at the end of the memory.
    fn from(&self, offset: u64) -> &[u8] {
        let after = self.parts.partition_point(|(start, _)| *start <= offset);
        let Some((start, part)) = after.checked_sub(1).map(|index| &self.parts[index]) else {
            return &[];
        };
        let bytes = (**part).as_ref();
        // A part has fewer bytes than a usize can count.
        bytes.get((offset - start) as usize..).unwrap_or_default()
    }
}

/// Memory of another owner, as a source.
pub(crate) struct BytesSource {
    location: Location,
    len_bytes: u64,
    memory: Weak<BorrowedMemory>,
}

impl BytesSource {
    /// The `len_bytes` of `memory`, which messages call `location`.
    pub fn new(location: Location, len_bytes: u64, memory: &Arc<BorrowedMemory>) -> Self {
        Self { location, len_bytes, memory: Arc::downgrade(memory) }
    }

    /// # Errors
    /// When the memory was given up.
    fn memory(&self) -> Result<Arc<BorrowedMemory>> {
        self.memory.upgrade().ok_or_else(|| {
            let sentence = format!("the memory with {} was given up; open it again", self.location);
            Error::invalid_input(sentence)
        })
    }
}

impl Source for BytesSource {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn location(&self) -> &Location {
        &self.location
    }

    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn block_bytes(&self) -> usize {
        1
    }

    fn cached_bytes(&self) -> Option<u64> {
        Some(self.len_bytes)
    }

    fn begins_cached(&self) -> bool {
        true
    }

    fn read_exact_at(
        &self,
        mut into: &mut [u8],
        mut offset: u64,
        _: &Cancellation,
    ) -> io::Result<()> {
        let memory = self.memory().map_err(io::Error::other)?;
        while !into.is_empty() {
            let bytes = memory.from(offset);
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (now, rest) = into.split_at_mut(bytes.len().min(into.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            offset += now.len() as u64;
            into = rest;
        }
        Ok(())
    }

    fn reader(self: Arc<Self>, _: &Access) -> Result<Box<dyn Reader>> {
        Ok(Box::new(BytesReader(self.memory()?)))
    }

    fn map(&self) -> Result<Mapping> {
        let sentence = format!("{} is not a file, and cannot be mapped", self.location);
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
}

struct BytesReader(Arc<BorrowedMemory>);

impl Reader for BytesReader {
    fn read_at(&self, mut window: Window, offset: u64) -> ReadFuture<'_> {
        Box::pin(async move {
            let bytes = self.0.from(offset);
            let len = bytes.len().min(window.unfilled_len());
            window.unfilled_mut()[..len].copy_from_slice(&bytes[..len]);
            (Ok(Attempt { bytes: len, via: Via::Mapped }), window)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn location() -> Location {
        Location::from(Path::new("memory"))
    }

    #[test]
    fn parts_are_read_as_if_they_were_one() {
        let parts: Vec<BorrowedBytes> =
            vec![Box::new(vec![0, 1]), Box::new([0; 0]), Box::new([2, 3, 4]), Box::new([5])];
        let memory = Arc::new(BorrowedMemory::new(parts));
        assert_eq!(memory.len_bytes(), 6);
        let source = BytesSource::new(location(), 6, &memory);
        for start in 0..6 {
            for end in start..=6 {
                let mut into = vec![9; end - start];
                source.read_exact_at(&mut into, start as u64, &Cancellation::new()).unwrap();
                assert_eq!(into, (start as u8..end as u8).collect::<Vec<_>>());
            }
        }
        let past = source.read_exact_at(&mut [0; 2], 5, &Cancellation::new());
        assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn memory_that_was_given_up_is_not_read() {
        let memory = Arc::new(BorrowedMemory::new(vec![Box::new([1, 2])]));
        let source = BytesSource::new(location(), 2, &memory);
        drop(memory);
        let error = source.read_exact_at(&mut [0; 2], 0, &Cancellation::new()).unwrap_err();
        assert!(error.to_string().contains("given up"), "{error}");
    }
}
