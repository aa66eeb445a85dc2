//! The source of an object of which the cache has some pages.
//!
//! The block of this source is at least a page, whatever the object's store is. So slots hold whole
//! pages and are aligned for direct reads and writes of the cache's file.

use super::entry::Entry;
use super::files::{DATA, EntryFiles};
use super::open_cache::OpenCache;
use super::pages::{PAGE_BYTES, PageBytes};
use super::reader::CachedReader;
use super::writer::WriteJob;
use crate::error::Result;
use crate::location::Location;
use crate::ring::Mapping;
use crate::source::{Access, Cancellation, ChecksumVerifier, ObjectSource, Reader, Source};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) struct CachedSource {
    cache: Arc<OpenCache>,
    object: Arc<ObjectSource>,
    /// `None` where the object cannot be cached.
    entry: Option<Arc<Entry>>,
    block_bytes: usize,
    /// Whether no page was missing when the source was opened.
    complete: bool,
}

impl CachedSource {
    pub fn new(
        cache: Arc<OpenCache>,
        object: Arc<ObjectSource>,
        entry: Option<Arc<Entry>>,
    ) -> Self {
        let file = entry.as_ref().and_then(|entry| entry.file_source());
        Self {
            block_bytes: file.map_or(1, |file| file.block_bytes()),
            complete: entry.as_ref().is_some_and(|entry| entry.is_complete()),
            cache,
            object,
            entry,
        }
    }

    /// Reads `pages` from the disk, or else from the store. Bytes from the store are written to the
    /// cache.
    fn pages(
        &self,
        entry: &Arc<Entry>,
        pages: Range<u64>,
        cancellation: &Cancellation,
    ) -> io::Result<Vec<u8>> {
        if let Some(bytes) = entry.read(&pages) {
            return Ok(bytes);
        }
        let mut bytes = vec![0; entry.checksums.len_of(&pages)];
        self.object.read_exact_at(&mut bytes, pages.start * PAGE_BYTES, cancellation)?;
        entry.sent_at_opening(pages.clone());
        if let Ok(files) = entry.files() {
            self.write(entry, files, pages.start, &bytes);
        }
        Ok(bytes)
    }

    fn write(&self, entry: &Arc<Entry>, files: Arc<EntryFiles>, first_page: u64, bytes: &[u8]) {
        if !self.cache.dir.stopped_writing() {
            self.cache.writer.push(WriteJob {
                entry: Arc::clone(entry),
                files,
                first_page,
                checksums: entry.checksums.of_pages(first_page, bytes),
                bytes: PageBytes::Owned(bytes.to_vec()),
                lock: None,
                reservation: None,
            });
        }
    }
}

impl Source for CachedSource {
    fn version(&self) -> String {
        self.object.version()
    }

    fn kind(&self) -> &'static str {
        if self.complete { "cache" } else { self.object.kind() }
    }

    fn location(&self) -> &Location {
        self.object.location()
    }

    fn len_bytes(&self) -> u64 {
        self.object.len_bytes()
    }

    fn is_remote(&self) -> bool {
        !self.complete
    }

    fn connections(&self) -> Option<usize> {
        self.object.connections().filter(|_| !self.complete)
    }

    fn range_bytes(&self, memory_bytes: u64, left_bytes: u64) -> Option<u64> {
        self.object.range_bytes(memory_bytes, left_bytes).filter(|_| !self.complete)
    }

    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn read_exact_at(
        &self,
        into: &mut [u8],
        offset: u64,
        cancellation: &Cancellation,
    ) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64).filter(|&end| end <= self.len_bytes());
        let (Some(end), Some(entry)) = (end, &self.entry) else {
            return self.object.read_exact_at(into, offset, cancellation);
        };
        let pages = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let bytes = self.pages(entry, pages, cancellation)?;
        let start = (offset % PAGE_BYTES) as usize;
        into.copy_from_slice(&bytes[start..start + into.len()]);
        Ok(())
    }

    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>> {
        access.counters.note(self.cache.dir.warning());
        let remote = Arc::clone(&self.object).reader(access)?;
        let Some(entry) = &self.entry else { return Ok(remote) };
        let Ok(files) = entry.files() else { return Ok(remote) };
        let (cache, entry) = (Arc::clone(&self.cache), Arc::clone(entry));
        Ok(Box::new(CachedReader::new(cache, entry, files, remote, access)))
    }

    fn verifier(&self) -> Option<Arc<ChecksumVerifier>> {
        self.object.verifier().filter(|_| self.entry.is_none())
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn cached_file(&self) -> Option<PathBuf> {
        let entry = self.entry.as_ref()?;
        // A process may have been killed after it wrote the last page and before it renamed the file.
        let _ = entry.commit();
        Some(entry.path().join(DATA))
    }

    fn map(&self) -> Result<Mapping> {
        // The bytes of a mapping cannot be checked before they are used.
        self.object.map()
    }

    fn check_unchanged(&self) -> Result<()> {
        // Every page was checked when it was read.
        Ok(())
    }
}
