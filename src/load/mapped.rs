//! A checkpoint of local files whose tensors are views of private mappings.
//!
//! ```text
//! MappedCheckpoint::new    --> one mapping a file, nothing is read
//! MappedCheckpoint::view   --> a view, at once
//! MappedCheckpoint::expect --> threads read it and what follows it (`read_ahead`)
//! MappedCheckpoint::wait   --> they have read it
//! ```
//!
//! The tensors are the pages of the page cache until somebody writes to them, which the mapping
//! permits: then the page is copied for this process alone. So processes that map the same file share
//! its memory, and the kernel can take back pages that nobody wrote to.
//!
//! A tensor follows its file: rewriting the file in place changes pages that nobody wrote to, and
//! truncating it kills a process that touches the lost part (SIGBUS).
//! [`check_unchanged`](MappedCheckpoint::check_unchanged) says whether the file is the one that was
//! opened. Replacing a file by renaming another one over it changes nothing, as does removing it.

use super::read_ahead::ReadAhead;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::options::Device;
use crate::plan::position;
use crate::source::MappedFile;
use crate::tensor::{Storage, Tensor};
use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A checkpoint whose files are mapped. It can be used in forked children, too, where nothing is read
/// ahead.
#[derive(Debug)]
pub struct MappedCheckpoint {
    checkpoint: Arc<Checkpoint>,
    /// The file of each shard.
    files: Vec<(MappedFile, ReadAhead)>,
}

/// Keeps the files of a checkpoint open, so that their names may lead elsewhere later.
#[derive(Clone)]
pub struct OpenFiles {
    _files: Vec<Arc<dyn Any + Send + Sync>>,
}

impl OpenFiles {
    /// Opens the local files of `checkpoint`. Those in stores are left out.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorKind::Changed) for a file that is not the one that was opened.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let open = checkpoint.shards().iter().map(|shard| shard.source().keep_open());
        let open: Vec<_> = open.collect::<Result<_>>()?;
        Ok(Self { _files: open.into_iter().flatten().collect() })
    }
}

impl MappedCheckpoint {
    /// Maps the files of an open checkpoint. Tensors have the types of the file, and are not checked.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a checkpoint in a store or on a web server;
    /// [`Changed`](crate::ErrorKind::Changed) for a file that is not the one that was opened.
    pub fn new(checkpoint: Arc<Checkpoint>) -> Result<Self> {
        let mapped = checkpoint.shards().iter().map(|shard| {
            let file = shard.source().map_private()?;
            let ahead = ReadAhead::new(&file, shard.data_offset_bytes()..shard.len_bytes());
            Ok((file, ahead))
        });
        let files = mapped.collect::<Result<_>>()?;
        Ok(Self { checkpoint, files })
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The tensor called `name`, as a view that foreign code may write to. Nothing is read by this
    /// call.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if no tensor has this name.
    pub fn view(&self, name: &str) -> Result<Tensor> {
        let index = position(&self.checkpoint, name)?;
        let info = &self.checkpoint.tensors()[index];
        let storage = match info.len_bytes() {
            0 => Storage::empty(Device::Host),
            len_bytes => {
                let start = info.offset_bytes() as usize;
                let (file, _) = &self.files[info.shard()];
                Storage::private(Arc::clone(file.mapping()), start..start + len_bytes as usize)
            }
        };
        // The index fits, as tensors are counted in this type.
        Ok(Tensor::new(Arc::clone(&self.checkpoint), index as u32, storage, 0))
    }

    /// Says that the program will use these bytes of `tensor`, a view of this checkpoint, counted from
    /// its beginning. They are read, and so are those after them if the program goes through the file
    /// in order. Returns whether the program should [`wait`](Self::wait) before it touches them.
    pub fn expect(&self, tensor: &Tensor, bytes: Range<u64>) -> bool {
        let (ahead, range) = self.in_file(tensor, bytes);
        ahead.expect(range)
    }

    /// Waits until these bytes of `tensor` were read, if they were requested, but at most for
    /// `timeout`. Returns whether that is so.
    pub fn wait(&self, tensor: &Tensor, bytes: Range<u64>, timeout: Duration) -> bool {
        let (ahead, range) = self.in_file(tensor, bytes);
        ahead.wait(&range, timeout)
    }

    fn in_file(&self, tensor: &Tensor, bytes: Range<u64>) -> (&ReadAhead, Range<u64>) {
        let info = tensor.info();
        let at = |offset: u64| info.offset_bytes() + offset.min(info.len_bytes());
        (&self.files[info.shard()].1, at(bytes.start)..at(bytes.end))
    }

    /// Begins to read all of the tensors called `names`, in this order, however many they are.
    ///
    /// # Errors
    /// As [`view`](Self::view), if one of them does not exist. Then nothing is read.
    pub fn prefetch(&self, names: &[String]) -> Result<()> {
        let positions = names.iter().map(|name| position(&self.checkpoint, name));
        for index in positions.collect::<Result<Vec<_>>>()? {
            let info = &self.checkpoint.tensors()[index];
            let (start, len_bytes) = (info.offset_bytes(), info.len_bytes());
            self.files[info.shard()].1.request(start..start + len_bytes);
        }
        Ok(())
    }

    /// Begins to read all tensors, in the order of the files.
    pub fn prefetch_all(&self) {
        for (_, ahead) in &self.files {
            ahead.request_all();
        }
    }

    /// [Waits](Self::wait) for everything that was requested.
    pub fn wait_for_all(&self, timeout: Duration) -> bool {
        self.files.iter().all(|(_, ahead)| ahead.wait_for_all(timeout))
    }

    /// Fails if a file was written to since it was opened.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorKind::Changed), naming what changed.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(|(file, _)| file.check_unchanged())
    }
}

#[cfg(test)]
mod tests;
