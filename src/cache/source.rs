//! An object that is on disk in part, as a source.
//!
//! Its block is a page or more, whatever its store is: so slots hold whole pages, and are laid out so
//! that they can be read and written directly.

use super::Opened;
use super::entry::Entry;
use super::files::{DATA, Files};
use super::pages::PAGE_BYTES;
use super::reader::CachedReader;
use super::writer::{Bytes, Job};
use crate::error::Result;
use crate::location::Location;
use crate::ring::Mapping;
use crate::source::{Access, FileSource, ObjectSource, Reader, Source};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// An object, and what the cache has of it.
pub(super) struct CachedSource {
    pub cache: Arc<Opened>,
    pub object: Arc<ObjectSource>,
    /// `None` where it cannot be cached.
    pub entry: Option<Arc<Entry>>,
    block_bytes: usize,
    /// Whether nothing of it was missing when it was opened.
    complete: bool,
}

impl CachedSource {
    pub fn new(cache: Arc<Opened>, object: Arc<ObjectSource>, entry: Option<Arc<Entry>>) -> Self {
        let file = entry.as_ref().and_then(|entry| entry.file_source());
        Self {
            block_bytes: file.map_or(1, |file| file.block_bytes()),
            complete: entry.as_ref().is_some_and(|entry| entry.is_complete()),
            cache,
            object,
            entry,
        }
    }

    /// The bytes of `pages`, from the disk or else from the store; then they are written, too.
    fn pages(&self, entry: &Arc<Entry>, pages: Range<u64>) -> io::Result<Vec<u8>> {
        if let Some(bytes) = entry.read(&pages) {
            return Ok(bytes);
        }
        let start = pages.start * PAGE_BYTES;
        let mut bytes = vec![0; (entry.sealer.end_of(&pages) - start) as usize];
        self.object.read_exact_at(&mut bytes, start)?;
        if let Ok(files) = entry.files() {
            self.keep(entry, files, pages.start, &bytes);
        }
        Ok(bytes)
    }

    fn keep(&self, entry: &Arc<Entry>, files: Arc<Files>, first_page: u64, bytes: &[u8]) {
        if !self.cache.shelf.gave_up() {
            self.cache.writer.push(Job {
                entry: Arc::clone(entry),
                files,
                first_page,
                seals: entry.sealer.seals(first_page, bytes),
                bytes: Bytes::Own(bytes.to_vec()),
                claim: None,
                held: None,
            });
        }
    }

    /// The part of it that is on disk, to be read from there by one engine.
    pub fn file_reader(&self, access: &Access) -> Option<Box<dyn Reader>> {
        let file = self.entry.as_ref()?.file_source()?;
        let file: Arc<FileSource> = Arc::new(file);
        // What cannot be read from there comes from the store.
        file.reader(access).ok()
    }
}

impl Source for CachedSource {
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

    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64).filter(|&end| end <= self.len_bytes());
        let (Some(end), Some(entry)) = (end, &self.entry) else {
            return self.object.read_exact_at(into, offset);
        };
        let pages = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let bytes = self.pages(entry, pages)?;
        let start = (offset % PAGE_BYTES) as usize;
        into.copy_from_slice(&bytes[start..start + into.len()]);
        Ok(())
    }

    fn reader(self: Arc<Self>, access: &Access) -> Result<Box<dyn Reader>> {
        access.counters.note(self.cache.shelf.trouble());
        let remote = Arc::clone(&self.object).reader(access)?;
        let files = self.entry.as_ref().and_then(|entry| entry.files().ok());
        match files {
            Some(files) => Ok(Box::new(CachedReader::new(self, files, remote, access))),
            None => Ok(remote),
        }
    }

    fn cached_file(&self) -> Option<PathBuf> {
        let entry = self.entry.as_ref()?;
        // A process may have been killed after it wrote the last page and before it renamed the file.
        let _ = entry.settle();
        Some(entry.directory.join(DATA))
    }

    fn map(&self) -> Result<Mapping> {
        // Mapped, its bytes could not be checked before they are used.
        self.object.map()
    }

    fn check_unchanged(&self) -> Result<()> {
        // Every page was checked.
        Ok(())
    }
}
