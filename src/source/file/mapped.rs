//! A file that is kept open, and mapped so that a program may write to the memory.
//!
//! The mapping is private: what a program writes goes to copies of pages that belong to it alone,
//! and not to the file. Pages that nobody wrote to are those of the page cache, which all processes
//! share and the kernel takes back when memory is short.

use super::open::OpenFile;
use crate::error::{Error, Result};
use crate::ring::Mapping;
use crate::sys;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// A mapped file that does not keep its mapping: tensors do, also when its checkpoint was closed.
#[derive(Debug)]
pub(crate) struct WeakMappedFile {
    open: Arc<OpenFile>,
    mapping: Weak<Mapping>,
}

impl WeakMappedFile {
    /// The file, as long as anybody has its mapping.
    pub fn upgrade(&self) -> Option<MappedFile> {
        Some(MappedFile { open: Arc::clone(&self.open), mapping: self.mapping.upgrade()? })
    }
}

/// A mapped file. It keeps its descriptor, so the name may lead elsewhere later.
#[derive(Debug)]
pub(crate) struct MappedFile {
    open: Arc<OpenFile>,
    mapping: Arc<Mapping>,
}

impl MappedFile {
    /// Maps the whole of `open`.
    pub(in crate::source) fn new(open: Arc<OpenFile>) -> Result<Self> {
        let len = open.identity.len_bytes as usize;
        let mapping = Mapping::private_of_file(&open.buffered, len)
            .map_err(|e| Error::from_io(format_args!("map {}", open.path().display()), e))?;
        Ok(Self { open, mapping: Arc::new(mapping) })
    }

    /// The file, without keeping its mapping.
    pub fn downgrade(&self) -> WeakMappedFile {
        WeakMappedFile { open: Arc::clone(&self.open), mapping: Arc::downgrade(&self.mapping) }
    }

    /// The mapping of the file.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Whether the page cache is known to hold all of `range`.
    pub fn is_cached(&self, range: Range<u64>) -> bool {
        let page = crate::ring::PAGE_BYTES as u64;
        let pages = range.end.div_ceil(page) - range.start / page;
        sys::cached_pages(&self.open.buffered, range.start, range.end - range.start)
            .is_ok_and(|cached| cached >= pages)
    }

    /// Fails if the file was written to since its header was read.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorKind::Changed), naming what changed.
    pub fn check_unchanged(&self) -> Result<()> {
        self.open.check_unchanged()
    }
}
