//! Finds the checksums of a checkpoint in a manifest.
//!
//! ```text
//! shard --name--> file of the manifest: length, header --equal?--> the sum of each of its tensors
//! ```
//!
//! What differs is an error that says whether the bytes are damaged or the manifest is of another
//! checkpoint.

use super::document::Manifest;
use super::file_sums::{FileSums, TensorSum};
use super::names::{components, matching};

use crate::checkpoint::{Checkpoint, Shard, TensorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use std::sync::Arc;

/// The checksums of an open checkpoint.
pub(crate) struct CheckpointSums {
    /// The CRC-64/NVME of each tensor, by its position in the checkpoint.
    pub tensors: Vec<u64>,
    /// The SHA-256 of each shard's file, if the manifest has it.
    pub sha256: Vec<Option<[u8; 32]>>,
    /// The manifest in messages.
    pub origin: Arc<str>,
}

impl Manifest {
    /// The checksums of `checkpoint`, whose headers have the lengths and checksums of the manifest.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) for a header with other bytes;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a file or a tensor that the manifest does not have
    /// or that has another length there.
    pub(crate) fn sums_of(&self, checkpoint: &Checkpoint) -> Result<CheckpointSums> {
        let mut tensors = Vec::with_capacity(checkpoint.tensors().len());
        let mut sha256 = Vec::with_capacity(checkpoint.shards().len());
        let is_only = checkpoint.shards().len() == 1;
        for shard in checkpoint.shards() {
            let file = self.file_of(shard.location(), shard.len_bytes(), is_only)?;
            self.check_header(shard, file)?;
            for tensor in &checkpoint.tensors()[shard.tensors()] {
                tensors.push(self.sum_of_tensor(shard, file, tensor)?);
            }
            sha256.push(file.sha256);
        }
        let others = self.files().len().saturating_sub(checkpoint.shards().len());
        if others > 0 {
            let files =
                if others == 1 { "1 file that is" } else { &format!("{others} files that are") };
            tracing::warn!("{} has {files} not loaded", self.origin());
        }
        Ok(CheckpointSums { tensors, sha256, origin: self.origin().into() })
    }

    /// The checksum of one tensor of `checkpoint`, in a file whose header is that of the manifest.
    ///
    /// # Errors
    /// As [`sums_of`](Self::sums_of).
    pub(crate) fn sum_of(&self, checkpoint: &Checkpoint, tensor: &TensorInfo) -> Result<u64> {
        let shard = &checkpoint.shards()[tensor.shard()];
        let is_only = checkpoint.shards().len() == 1;
        let file = self.file_of(shard.location(), shard.len_bytes(), is_only)?;
        self.check_header(shard, file)?;
        self.sum_of_tensor(shard, file, tensor)
    }

    /// The file of the manifest for the file at `location`, which has `bytes` bytes. The name does not
    /// matter if there is only one file, in the checkpoint and in the manifest.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is none, or if it has another length.
    pub(crate) fn file_of(
        &self,
        location: &Location,
        bytes: u64,
        is_only: bool,
    ) -> Result<&FileSums> {
        let path = components(location);
        let matches =
            self.files().iter().filter_map(|file| Some((matching(&path, &file.name)?, file)));
        let found = matches.max_by_key(|(components, _)| *components).map(|(_, file)| file);
        let found = match (found, self.files()) {
            (None, [only]) if is_only => Some(only),
            (found, _) => found,
        };
        let Some(file) = found else {
            return self.differs(location, format_args!("has no file of this name"));
        };
        if file.bytes == bytes {
            return Ok(file);
        }
        let of_manifest = file.bytes;
        self.differs(
            location,
            format_args!("has it with {of_manifest} bytes, and the file has {bytes}"),
        )
    }

    fn check_header(&self, shard: &Shard, file: &FileSums) -> Result<()> {
        let (bytes, crc) = (shard.data_offset_bytes(), shard.header_crc());
        if (bytes, crc) == (file.header_bytes, file.header_crc) {
            return Ok(());
        }
        let sentence = format!(
            "the header of {} is corrupt or of another version: the CRC-64/NVME of its {bytes} bytes \
             is {crc:016x}, but {} has {:016x} of {} bytes; replace the file, or write the manifest \
             anew with ringload sum if the file is right",
            shard.location(),
            self.origin(),
            file.header_crc,
            file.header_bytes,
        );
        Err(Error::new(ErrorKind::Corrupt, sentence))
    }

    /// The checksum of `tensor`, which is in `shard`.
    fn sum_of_tensor(&self, shard: &Shard, file: &FileSums, tensor: &TensorInfo) -> Result<u64> {
        let (name, offset, bytes) = (tensor.name(), tensor.offset_bytes(), tensor.len_bytes());
        let first = file.tensors.partition_point(|sum| sum.offset < offset);
        let mut here = file.tensors[first..].iter().take_while(|sum| sum.offset == offset);
        if let Some(sum) = here.find(|sum| sum.bytes == bytes && &*sum.name == name) {
            return Ok(sum.crc);
        }
        match file.tensors.iter().find(|sum| &*sum.name == name) {
            None => self.differs(
                shard.location(),
                format_args!("has no checksum of its tensor {name:?}"),
            ),
            Some(TensorSum { offset: other_offset, bytes: other_bytes, .. }) => self.differs(
                shard.location(),
                format_args!(
                    "has its tensor {name:?} with {other_bytes} bytes at offset {other_offset}, and \
                     the file has {bytes} at {offset}"
                ),
            ),
        }
    }

    fn differs<T>(&self, location: &Location, what: impl std::fmt::Display) -> Result<T> {
        let sentence = format!(
            "{} does not describe {location}: the manifest {what}; use the manifest of this version \
             of the checkpoint, or write one with ringload sum",
            self.origin()
        );
        Err(Error::new(ErrorKind::InvalidInput, sentence))
    }
}
