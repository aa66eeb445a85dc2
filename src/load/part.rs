//! One tensor of an open checkpoint, or a part of it, into memory of its own.
//!
//! ```text
//! one run              its bytes, straight into the tensor's memory
//! few long runs        each straight into its place
//! many short runs      near ones together into a buffer, and gathered from there, a batch at a time
//! ```
//!
//! What is little is read by the calling thread; the rest by engines, as [`Loader::read_into`] does.

use super::{Loader, ReadRequest};
use crate::cast::Cast;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Pick, Read, Runs, position};
use crate::source::Source;
use crate::tensor::{Tensor, TensorBuffer};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Less than this is read by the calling thread: starting engines takes longer.
const LITTLE_BYTES: u64 = 256 << 10;
/// Runs of this length are worth a read of their own.
const LONG_RUN_BYTES: u64 = 256 << 10;
/// So much that nobody asked for is read with what was: on a disk that is sooner done than another
/// read; over a network another request costs more.
const GAP_BYTES: u64 = 64 << 10;
const GAP_BYTES_REMOTE: u64 = 1 << 20;
/// One read of short runs.
const READ_BYTES: u64 = 8 << 20;
/// What is read before it is gathered.
const BATCH_BYTES: u64 = 64 << 20;
const BATCH_READS: usize = 4096;

impl Loader {
    /// Reads the tensor called `name` of a checkpoint that is open, or what `picks` take of each of
    /// its dimensions, and no more than that (besides what lies between runs near to each other). It
    /// is cast as the loader's loads are.
    ///
    /// A whole tensor goes where the loader's tensors go, a part into host memory. The memory limit
    /// does not apply to what is read into host memory.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where no tensor is called so, [`ErrorKind::InvalidInput`] for picks
    /// that are not within its shape, [`ErrorKind::Unsupported`] for a part of a tensor whose elements
    /// are narrower than a byte; else what reading says.
    pub fn read_tensor(
        &self,
        checkpoint: &Arc<Checkpoint>,
        name: &str,
        picks: Option<&[Pick]>,
    ) -> Result<Tensor> {
        self.check_not_verifying()?;
        let index = position(checkpoint, name)?;
        let info = &checkpoint.tensors()[index];
        if picks.is_none() && !self.devices.device_of(name).is_host() {
            return self.read_to_gpu(checkpoint, name);
        }
        let runs = runs_of(info, picks)?;
        let shape = picks.map(|picks| picks.iter().map(|pick| pick.count).collect());
        let cast = self.dtype.and_then(|to| Cast::new(info.dtype(), to));
        let shard = &checkpoint.shards()[info.shard()];
        let wanted = Wanted { source: shard.source(), start: info.offset_bytes(), runs: &runs };
        let block_bytes = wanted.source.block_bytes();
        let first = wanted.start + runs.offsets().next().unwrap_or(0);
        let mut room = TensorBuffer::new(runs.len_bytes(), first, block_bytes)?;
        wanted.read(self, room.bytes_mut())?;
        if let Some(cast) = cast {
            let mut target =
                TensorBuffer::new(cast.target_bytes(runs.len_bytes()), 0, block_bytes)?;
            cast.run(room.bytes_mut(), target.bytes_mut());
            room = target;
        }
        let (storage, start) = room.into_storage()?;
        // A position in the tensors fits, as they are counted in this type.
        let tensor = Tensor::new(Arc::clone(checkpoint), index as u32, storage, start);
        Ok(tensor.cast(cast).of_shape(shape))
    }

    fn read_to_gpu(&self, checkpoint: &Arc<Checkpoint>, name: &str) -> Result<Tensor> {
        let loader = self.clone().tensors(Vec::<String>::new()).names([name]);
        let nothing = || Err(Error::new(ErrorKind::Cancelled, "the load was stopped"));
        loader.stream_checkpoint(Arc::clone(checkpoint))?.next().unwrap_or_else(nothing)
    }
}

fn runs_of(info: &TensorInfo, picks: Option<&[Pick]>) -> Result<Runs> {
    let refuse = |kind, why: String| {
        Err(Error::new(kind, format!("cannot read tensor {:?}: {why}", info.name())))
    };
    let bits = info.dtype().bitsize() as u64;
    let Some(picks) = picks else {
        // Also of elements that are narrower than a byte, and of shapes beyond any number.
        let bytes = info.len_bytes() as usize;
        return Runs::new(&[bytes], 1, &[Pick::all(bytes)])
            .or_else(|why| refuse(ErrorKind::InvalidInput, why));
    };
    if !bits.is_multiple_of(8) {
        let why = format!("elements of {} are narrower than a byte; read all of it", info.dtype());
        return refuse(ErrorKind::Unsupported, why);
    }
    Runs::new(info.shape(), bits / 8, picks).or_else(|why| refuse(ErrorKind::InvalidInput, why))
}

/// What is read of a source.
struct Wanted<'a> {
    source: &'a Arc<dyn Source>,
    /// Where the tensor begins in it.
    start: u64,
    runs: &'a Runs,
}

impl Wanted<'_> {
    /// Reads all runs into `into`, one behind the other.
    fn read(&self, loader: &Loader, into: &mut [u8]) -> Result<()> {
        let run_bytes = self.runs.run_bytes() as usize;
        if run_bytes == 0 {
            return Ok(());
        }
        if self.runs.count() == 1 || self.runs.run_bytes() >= LONG_RUN_BYTES {
            let places = self.runs.offsets().zip(into.chunks_mut(run_bytes));
            return self.read_each(loader, places.collect());
        }
        let gap = if self.source.is_remote() { GAP_BYTES_REMOTE } else { GAP_BYTES };
        let mut reads = self.runs.reads(gap, READ_BYTES).peekable();
        let (mut buffer, mut rest) = (Vec::new(), into);
        while reads.peek().is_some() {
            let batch = batch_of(&mut reads);
            let len: u64 = batch.iter().map(|read| read.len_bytes).sum();
            buffer.resize(len as usize, 0);
            rest = self.read_batch(loader, &batch, &mut buffer, rest)?;
        }
        Ok(())
    }

    /// Reads a batch into `buffer` and its runs from there to the front of `into`; gives what is left
    /// of that.
    fn read_batch<'a>(
        &self,
        loader: &Loader,
        batch: &[Read],
        buffer: &mut [u8],
        mut into: &'a mut [u8],
    ) -> Result<&'a mut [u8]> {
        let mut places = Vec::with_capacity(batch.len());
        let mut free = &mut *buffer;
        for read in batch {
            let (place, behind) = free.split_at_mut(read.len_bytes as usize);
            places.push((read.offset_bytes, place));
            free = behind;
        }
        self.read_each(loader, places)?;
        let mut filled = &*buffer;
        for read in batch {
            let (bytes, behind) = filled.split_at(read.len_bytes as usize);
            for run in read.within(self.runs.run_bytes()) {
                let (place, left) = into.split_at_mut(run.len());
                place.copy_from_slice(&bytes[run]);
                into = left;
            }
            filled = behind;
        }
        Ok(into)
    }

    /// Reads from each of these offsets of the tensor into the memory beside it.
    fn read_each(&self, loader: &Loader, places: Vec<(u64, &mut [u8])>) -> Result<()> {
        let bytes: u64 = places.iter().map(|(_, into)| into.len() as u64).sum();
        if places.len() == 1 && bytes <= LITTLE_BYTES {
            for (offset, into) in places {
                let read = self.source.read_exact_at(into, self.start + offset);
                let doing = || format!("read {}", self.source.location());
                read.map_err(|error| Error::from_io(doing(), error))?;
            }
            return self.source.check_unchanged();
        }
        let request = |(offset, into)| ReadRequest::of(self.source, self.start + offset, into);
        let mut requests: Vec<_> = places.into_iter().map(request).collect();
        loader.read_into(&mut requests, |_| ControlFlow::Continue(())).map(drop)
    }
}

fn batch_of(reads: &mut impl Iterator<Item = Read>) -> Vec<Read> {
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
