//! Loads one tensor of an open checkpoint, or a part of it, into memory of its own.
//!
//! ```text
//! one run              is read directly into the tensor's memory
//! few long runs        each is read directly into its part of the tensor's memory
//! many short runs      neighbours are read together into a buffer and copied from there, in batches
//! ```
//!
//! A small read is done by the calling thread, others by engines as in [`Loader::read_into`].

use super::loader::Loader;
use super::read_request::ReadRequest;
use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};
use crate::plan::{Pick, RunRead, Runs, gap_bytes, position};
use crate::source::{Source, stopped};
use crate::tensor::{Tensor, TensorBuffer};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Reads of up to this many bytes are done by the calling thread, as starting engines takes longer.
const SMALL_BYTES: u64 = 256 << 10;
/// Runs of at least this length get a read of their own.
const LONG_RUN_BYTES: u64 = 256 << 10;
/// The largest read of short runs.
const READ_BYTES: u64 = 8 << 20;
/// The largest batch of reads.
const BATCH_BYTES: u64 = 64 << 20;
const BATCH_READS: usize = 4096;

impl Loader {
    /// Reads the tensor called `name` of an open checkpoint. With `picks`, reads only the part that
    /// they take of each dimension, and small gaps within that part. The tensor is cast as in the
    /// loader's loads.
    ///
    /// A whole tensor is loaded to the loader's device for it, a part into host memory. The memory
    /// limit does not apply to reads into host memory. Without `picks`, the loader's
    /// [`slices`](Self::slices) say which part of the tensor is read.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if no tensor has this name,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for picks that exceed its shape, or that cut a byte of a tensor whose elements are narrower than a byte;
    /// otherwise the error of the read.
    pub fn read_tensor(
        &self,
        checkpoint: &Arc<Checkpoint>,
        name: &str,
        picks: Option<&[Pick]>,
    ) -> Result<Tensor> {
        self.check_not_verifying()?;
        let index = position(checkpoint, name)?;
        let info = &checkpoint.tensors()[index];
        if picks.is_none() && !self.options.devices.device_of(name).is_host() {
            return self.read_to_gpu(checkpoint, name);
        }
        let (runs, shape) = match (picks, self.options.selection.slices.part_of(info)?) {
            (None, Some(part)) => (part.runs().clone(), Some(Arc::clone(part.shape()))),
            _ => {
                let shape = picks.map(|picks| picks.iter().map(|pick| pick.count).collect());
                (runs_of(info, picks)?, shape)
            }
        };
        if shape.is_some() {
            self.check_takes_parts()?;
        }
        let cast = self.options.dtype.and_then(|to| Cast::new(info.dtype(), to));
        let shard = &checkpoint.shards()[info.shard()];
        let tensor = TensorRuns { source: shard.source(), start: info.offset_bytes(), runs: &runs };
        let block_bytes = tensor.source.block_bytes();
        let first = tensor.start + runs.offsets().next().unwrap_or(0);
        let mut buffer = TensorBuffer::new(runs.len_bytes(), first, block_bytes)?;
        tensor.read(&self.unchecked(), buffer.bytes_mut())?;
        if shape.is_none() {
            self.check_tensor(checkpoint, info, buffer.bytes_mut())?;
        }
        if let Some(cast) = cast {
            let mut target =
                TensorBuffer::new(cast.target_bytes(runs.len_bytes()), 0, block_bytes)?;
            cast.run(buffer.bytes_mut(), target.bytes_mut());
            buffer = target;
        }
        let (storage, start) = buffer.into_storage()?;
        // The index fits, as tensors are counted in this type.
        let tensor = Tensor::new(Arc::clone(checkpoint), index as u32, storage, start);
        Ok(tensor.cast(cast).of_shape(shape))
    }

    fn read_to_gpu(&self, checkpoint: &Arc<Checkpoint>, name: &str) -> Result<Tensor> {
        let loader = self.clone().tensors(Vec::<String>::new()).names([name]);
        let mut stream = loader.stream_checkpoint(Arc::clone(checkpoint))?;
        let tensor = stream.next().unwrap_or_else(|| Err(stopped()))?;
        // A load that did not pass its checks fails at its end.
        stream.next().transpose()?;
        Ok(tensor)
    }
}

fn runs_of(info: &TensorInfo, picks: Option<&[Pick]>) -> Result<Runs> {
    let bytes = info.len_bytes() as usize;
    let runs = match picks {
        None => Runs::new(&[bytes], 8, &[Pick::all(bytes)]),
        Some(picks) => Runs::new(info.shape(), info.dtype().bitsize() as u64, picks),
    };
    runs.map_err(|why| {
        let (name, dtype) = (info.name(), info.dtype());
        Error::invalid_input(format!("cannot read tensor {name:?} of {dtype}: {why}"))
    })
}

/// The runs of a tensor's bytes to read.
struct TensorRuns<'a> {
    source: &'a Arc<dyn Source>,
    /// The offset of the tensor in the source.
    start: u64,
    runs: &'a Runs,
}

impl TensorRuns<'_> {
    /// Reads all runs into `into`, one after the other.
    fn read(&self, loader: &Loader, into: &mut [u8]) -> Result<()> {
        let run_bytes = self.runs.run_bytes() as usize;
        if run_bytes == 0 {
            return Ok(());
        }
        if self.runs.count() == 1 || self.runs.run_bytes() >= LONG_RUN_BYTES {
            let parts = self.runs.offsets().zip(into.chunks_mut(run_bytes));
            return self.read_each(loader, parts.collect());
        }
        let gap_bytes = gap_bytes(&**self.source);
        let mut reads = self.runs.reads(gap_bytes, READ_BYTES).peekable();
        let (mut buffer, mut rest) = (Vec::new(), into);
        while reads.peek().is_some() {
            let batch = batch_of(&mut reads);
            let len: u64 = batch.iter().map(|read| read.len_bytes).sum();
            buffer.resize(len as usize, 0);
            rest = self.read_batch(loader, &batch, &mut buffer, rest)?;
        }
        Ok(())
    }

    /// Reads a batch into `buffer` and copies its runs to the front of `into`. Returns the rest of
    /// `into`.
    fn read_batch<'a>(
        &self,
        loader: &Loader,
        batch: &[RunRead],
        buffer: &mut [u8],
        mut into: &'a mut [u8],
    ) -> Result<&'a mut [u8]> {
        let mut parts = Vec::with_capacity(batch.len());
        let mut free = &mut *buffer;
        for read in batch {
            let (part, rest) = free.split_at_mut(read.len_bytes as usize);
            parts.push((read.offset_bytes, part));
            free = rest;
        }
        self.read_each(loader, parts)?;
        let mut filled = &*buffer;
        for read in batch {
            let (bytes, rest) = filled.split_at(read.len_bytes as usize);
            for run in read.within(self.runs.run_bytes()) {
                let (part, left) = into.split_at_mut(run.len());
                part.copy_from_slice(&bytes[run]);
                into = left;
            }
            filled = rest;
        }
        Ok(into)
    }

    /// Reads from each of these offsets of the tensor into the memory paired with it.
    fn read_each(&self, loader: &Loader, parts: Vec<(u64, &mut [u8])>) -> Result<()> {
        let bytes: u64 = parts.iter().map(|(_, into)| into.len() as u64).sum();
        if parts.len() == 1 && bytes <= SMALL_BYTES {
            for (offset, into) in parts {
                let cancellation = loader.opener.cancellation();
                let read = self.source.read_exact_at(into, self.start + offset, cancellation);
                let doing = || format!("read {}", self.source.location());
                read.map_err(|error| Error::from_io(doing(), error))?;
            }
            return self.source.check_unchanged();
        }
        let request = |(offset, into)| ReadRequest::of(self.source, self.start + offset, into);
        let mut requests: Vec<_> = parts.into_iter().map(request).collect();
        loader.read_requests(&mut requests, |_| ControlFlow::Continue(()), None).map(drop)
    }
}

fn batch_of(reads: &mut impl Iterator<Item = RunRead>) -> Vec<RunRead> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES && batch.len() < BATCH_READS {
        let Some(read) = reads.next() else { break };
        bytes += read.len_bytes;
        batch.push(read);
    }
    batch
}

#[cfg(test)]
mod tests;
