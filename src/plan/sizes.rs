//! Decides the sizes of a load (its memory, extents, reads and engines) in three steps.
//!
//! ```text
//! memory limit, tensors     -> the limit's shares, extents and pieces     LoadSizes::new
//! slots of the extents      -> the rings                                  LoadSizes::with_slots
//! rings, sources, options   -> engines, reads, queue depth                ReadSizes::new
//! ```
//!
//! **Limit.** A limit bounds the rings, and with them the tensors' bytes in host memory. Everything
//! else that a load allocates (headers, names, stacks, queues) does not grow with the tensors' bytes
//! and is not counted. Direct reads work in whole blocks, so the slot of an extent is up to two blocks
//! longer than the extent. The host's ring may exceed the limit by that much, so that a limit of
//! exactly the largest tensor suffices. A tensor that is cast is in the ring twice for a short time, as
//! stored and as cast, so both count.
//!
//! **Host.** Tensors stay in the host's ring, so it holds at least the largest one. Small tensors are
//! gathered into extents of [`EXTENT_BYTES`], or of a quarter of a limit that does not hold all
//! tensors, so that extents are read while others are in use.
//!
//! **GPUs.** Tensors pass through the GPUs' ring in pieces, so two slots suffice for any tensor. At least
//! eight pieces fill the ring, or two where it is small. Without a limit the ring has
//! [`GPU_FILE_RING_BYTES`], or [`GPU_RING_BYTES`] for tensors that come over the network. That keeps a GPU
//! busy, and pinning more would take longer than it saves. With a limit and tensors for both, the GPUs'
//! ring gets a quarter of the limit, and the host's ring the rest.
//!
//! **Gathered parts.** A part of a tensor that consists of several runs is in the host's ring alone; the
//! pieces of the tensor that it is copied from pass through a third ring of at most [`GATHER_RING_BYTES`],
//! or a quarter of the limit. Two slots of it suffice, as only engines hold them.
//!
//! **Reads.** A ring holds at least eight reads, or sixteen where each is a request to a server. One
//! engine per [`ENGINE_BYTES`] runs, up to the number of cores, or less of them where files go to GPUs
//! ([`GPU_CORES`]). Together they keep a sixteenth of the
//! load of files in flight, within bounds, but no more than fit the ring. How many ranges of objects
//! are on the way, and how long they are, is measured while the load runs
//! (`src/source/http/concurrency.rs`).

use super::chunk::ChunkSize;
use super::tensor_sizes::{EXTENT_BYTES, TensorSizes};
use crate::error::Result;
use crate::options::{MemoryLimit, cores};
use crate::source::Source;
use std::sync::Arc;

/// The size of a read. Direct reads cost this many CPU-seconds per GB by size (medians of 3): 2 MiB
/// 0.054, 4 MiB 0.043, 8 MiB 0.039, 16 MiB 0.037. The wall times did not differ.
const CHUNK_BYTES: u64 = 8 << 20;
/// The minimum size of reads into a small ring.
const CHUNK_BYTES_MIN: u64 = 256 << 10;
/// The bounds of the read size that a caller may set.
const REQUESTED_CHUNK_BYTES_MIN: u64 = 4 << 10;
const REQUESTED_CHUNK_BYTES_MAX: u64 = 256 << 20;
/// The maximum number of bytes in flight over all engines. On an idle 2-core virtual machine 64 MiB
/// are as fast. When the cores are busy with other work, or the storage is an array, a deep queue
/// keeps the storage busy: with two compilers running, 64 MiB took 3.4 s, 128 MiB 3.0 s and 256 MiB
/// 2.1 s for 4.25 GB (medians of 3).
const IN_FLIGHT_BYTES_MAX: u64 = 256 << 20;
/// The minimum number of bytes in flight. A small load keeps less in flight than a large one, as
/// each byte in flight is fresh memory, which costs more than reading.
const IN_FLIGHT_BYTES_MIN: u64 = 64 << 20;
/// An engine is started for each of this many bytes to read.
const ENGINE_BYTES: u64 = 64 << 20;
/// The maximum number of engines. One core copies about 6 GB/s out of the page cache, and a GPU
/// receives 55 GB/s.
const ENGINES_MAX: usize = 16;
/// One core in this many is left to the threads that copy to GPUs, where files are copied from the page
/// cache. On one H200 with 16 cores, 8, 10, 12, 14 and 16 engines loaded 39, 44, 45, 43 and 37 GB/s.
const GPU_CORES: usize = 4;
/// Larger rings are not registered with io_uring, as all of a registered ring is faulted in before
/// the first read.
const REGISTER_BYTES_MAX: u64 = 512 << 20;
/// Rings up to this size are registered for a load of any size, which takes a few milliseconds.
const REGISTER_BYTES_MIN: u64 = 16 << 20;
/// How far ahead memory is faulted in if all bytes come over the network, which is slower than
/// zeroing memory. A load whose tensors are dropped as they arrive then touches no more memory than
/// it needs.
const AHEAD_BYTES_REMOTE: usize = 32 << 20;
/// One part in this many of a reused ring may wait to be written to the cache.
const CACHE_SHARE: u64 = 4;
/// The number of threads that call cuFile. They sleep in its calls, so there may be more threads
/// than cores.
const GDS_THREADS: usize = 8;
/// The bounce buffer through which a thread reads if cuFile refuses a read.
const BOUNCE_BYTES: u64 = 1 << 20;

/// The slots that some extents need. In bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SlotSizes {
    pub total_bytes: u64,
    pub largest_bytes: u64,
}

impl SlotSizes {
    /// Adds slots for an extent.
    pub fn add(&mut self, slot_bytes: u64) {
        self.total_bytes += slot_bytes;
        self.largest_bytes = self.largest_bytes.max(slot_bytes);
    }
}

/// The sizes of a load's memory and extents. All in bytes. See the module's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadSizes {
    /// The memory limit; `None` without one.
    pub limit_bytes: Option<u64>,
    /// The share of the limit for tensors that stay in host memory.
    host_limit_bytes: Option<u64>,
    /// The share of the limit for the ring of GPUs, which may be smaller; 0 without GPUs.
    pub gpu_ring_bytes_max: u64,
    /// Tensors for the host are gathered into one extent as long as they fit into this.
    pub extent_bytes: u64,
    /// Tensors for GPUs are cut at multiples of this.
    pub piece_bytes: u64,
    /// Parts for the host are gathered from pieces of at most this.
    pub gather_bytes: u64,
    /// The ring through which these pieces pass; 0 if there are none.
    pub gather_ring_bytes: u64,
    /// The alignment of slots: the largest block of the sources.
    pub block_bytes: u64,
    /// The sum of the host's slots, in whole blocks.
    pub host_slots_bytes: u64,
    /// The ring in which the host's tensors stay; 0 if there are none.
    pub host_ring_bytes: u64,
    /// The ring through which GPUs' tensors pass; 0 if there are none.
    pub gpu_ring_bytes: u64,
    /// The smallest memory limit for these tensors.
    least_bytes: u64,
}

/// The caller's settings of a load's reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReadOptions {
    pub engines: Option<usize>,
    pub connections: Option<usize>,
    pub read_bytes: Option<u64>,
    /// Whether tensors go to GPUs.
    pub to_gpus: bool,
}

/// The sizes of a load's reads. See the module's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadSizes {
    pub engines: usize,
    /// Reads in flight per engine, of files.
    pub depth: usize,
    /// The number of ranges that are requested at once at first; 0 without objects.
    pub connections: usize,
    pub chunks: ChunkSize,
    /// Whether the ring is registered with io_uring.
    pub register: bool,
    /// How far ahead of the reads memory is faulted in.
    pub ahead_bytes: usize,
}

impl LoadSizes {
    /// The sizes for a load of these tensors, still without rings.
    ///
    /// # Errors
    /// [`ErrorKind::MemoryLimit`] with both sizes when the limit is below the largest tensor of the
    /// host and, if tensors go to GPUs, two slots.
    pub fn new(limit: MemoryLimit, tensors: TensorSizes) -> Result<Self> {
        let limit_bytes = tensors.limit_bytes(limit)?;
        let gather_ring_bytes = tensors.gather_share_bytes(limit, limit_bytes);
        let rest_bytes = limit_bytes.map(|limit| limit.saturating_sub(gather_ring_bytes));
        let gpu_ring_bytes_max = tensors.gpu_share_bytes(limit, rest_bytes);
        let host_limit_bytes = rest_bytes.map(|rest| rest.saturating_sub(gpu_ring_bytes_max));
        let extent_bytes = match host_limit_bytes {
            Some(limit) if limit < tensors.host_bytes => EXTENT_BYTES.min((limit / 4).max(1)),
            _ => EXTENT_BYTES,
        };
        Ok(Self {
            limit_bytes,
            host_limit_bytes,
            gpu_ring_bytes_max,
            extent_bytes,
            piece_bytes: tensors.gpu_piece_bytes(gpu_ring_bytes_max),
            gather_bytes: tensors.gather_piece_bytes(gather_ring_bytes),
            gather_ring_bytes,
            block_bytes: tensors.block_bytes,
            host_slots_bytes: 0,
            host_ring_bytes: 0,
            gpu_ring_bytes: 0,
            least_bytes: tensors.least_bytes(),
        })
    }

    /// Adds the rings for extents with these slots. A ring is never larger than its slots; the host's
    /// is never smaller than one slot.
    pub fn with_slots(self, host: SlotSizes, gpus: SlotSizes) -> Self {
        let host_ring_bytes = match self.host_limit_bytes {
            None => host.total_bytes,
            Some(limit) => host.total_bytes.min(limit.max(host.largest_bytes)),
        };
        let gpu_ring_bytes = gpus.total_bytes.min(self.gpu_ring_bytes_max);
        Self { host_slots_bytes: host.total_bytes, host_ring_bytes, gpu_ring_bytes, ..self }
    }

    /// Limits the ring of gathered pieces to their slots.
    pub fn with_gathered(self, pieces: SlotSizes) -> Self {
        Self { gather_ring_bytes: self.gather_ring_bytes.min(pieces.total_bytes), ..self }
    }

    /// The smallest memory limit for the tensors of the load.
    pub fn least_bytes(&self) -> u64 {
        self.least_bytes
    }

    /// The largest size that both rings together have under the smallest memory limit.
    pub fn least_ring_bytes(&self) -> u64 {
        self.least_bytes + 2 * self.block_bytes
    }

    /// The size of all rings together.
    pub fn ring_bytes(&self) -> u64 {
        self.host_ring_bytes + self.gpu_ring_bytes + self.gather_ring_bytes
    }

    /// How many bytes of the load's memory may wait to be written to the cache: a share of the
    /// memory that is reused, which is all of it under a limit, and otherwise the ring of GPUs.
    /// `None` if no memory is reused.
    pub fn cache_held_bytes(&self) -> Option<u64> {
        let reused = match (self.gpu_ring_bytes + self.gather_ring_bytes, self.limit_bytes) {
            (0, None) => None,
            (passed, None) => Some(passed),
            (_, Some(_)) if self.gpu_ring_bytes == 0 => Some(self.ring_bytes()),
            (_, Some(_)) => Some(self.gpu_ring_bytes),
        };
        reused.map(|bytes| bytes / CACHE_SHARE)
    }

    /// The number of threads that read `extents` extents through cuFile, and the size of each
    /// thread's bounce buffer. Together the buffers are no larger than the ring that such a load
    /// does not need.
    pub fn gds_threads(&self, options: ReadOptions, extents: usize) -> (usize, usize) {
        let threads = options.engines.unwrap_or(GDS_THREADS).min(extents.max(1));
        (threads, BOUNCE_BYTES.min(self.gpu_ring_bytes_max / threads as u64) as usize)
    }
}

impl ReadSizes {
    /// The sizes for reading `total_bytes` of `sources` into `memory_bytes` of memory: the rings,
    /// or buffers of the caller. `options` take precedence where they are set.
    pub fn new(
        options: ReadOptions,
        memory_bytes: u64,
        total_bytes: u64,
        sources: &[Arc<dyn Source>],
    ) -> Self {
        let connections = sources.iter().filter_map(|source| source.connections()).max();
        let connections =
            connections.map_or(0, |now| options.connections.map_or(now, |given| given.min(now)));
        let useful = (total_bytes / ENGINE_BYTES).max(1) as usize;
        let any_remote = sources.iter().any(|source| source.is_remote());
        // The threads of a GPU need time at once when a copy has ended.
        let spared = if options.to_gpus && !any_remote { cores() / GPU_CORES } else { 0 };
        let engines =
            options.engines.unwrap_or_else(|| (cores() - spared).min(ENGINES_MAX).min(useful));
        let block = sources.iter().map(|source| source.block_bytes() as u64).max().unwrap_or(1);
        let any_local = sources.iter().any(|source| !source.is_remote());
        let reads = if connections > 0 { 16 } else { 8 };
        let fitting = (memory_bytes / reads).max(CHUNK_BYTES_MIN);
        let requested = options
            .read_bytes
            .map(|bytes| bytes.clamp(REQUESTED_CHUNK_BYTES_MIN, REQUESTED_CHUNK_BYTES_MAX));
        let chunk_bytes = requested.unwrap_or(CHUNK_BYTES).min(fitting).next_multiple_of(block);
        let in_flight_bytes = (total_bytes / 16).clamp(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_BYTES_MAX);
        let in_flight = in_flight_bytes.min(memory_bytes).div_ceil(chunk_bytes).max(1) as usize;
        // An eighth of the load, within bounds.
        let register_max = (total_bytes / 8).clamp(REGISTER_BYTES_MIN, REGISTER_BYTES_MAX);
        Self {
            engines,
            depth: if sources.iter().any(|source| source.connections().is_none()) {
                in_flight.div_ceil(engines)
            } else {
                1
            },
            connections,
            chunks: ChunkSize { bytes_max: chunk_bytes, adapts: options.read_bytes.is_none() },
            register: any_local && memory_bytes < total_bytes && memory_bytes <= register_max,
            ahead_bytes: match any_local {
                true => (in_flight_bytes / 2) as usize,
                false => AHEAD_BYTES_REMOTE,
            },
        }
    }
}

#[cfg(test)]
mod tests;
