//! How many engines, how deep, how large the reads: chosen from the load and the machine.

use crate::options::cores;
use crate::source::{CONNECTIONS_MAX, Source};
use std::sync::Arc;

/// One read. CPU-seconds a GB of direct reads by size, medians of 3: 2 MiB 0.054, 4 MiB 0.043,
/// 8 MiB 0.039, 16 MiB 0.037; the wall time did not tell them apart.
const CHUNK_BYTES: u64 = 8 << 20;
/// Reads never get smaller than this to suit a small ring.
const CHUNK_BYTES_MIN: u64 = 256 << 10;
/// Bounds of what a caller may ask one read to be.
const WANTED_BYTES_MIN: u64 = 4 << 10;
const WANTED_BYTES_MAX: u64 = 256 << 20;
/// Bytes in flight over all engines. On a quiet 2-core virtual machine 64 MiB are as good; when the
/// cores are busy with other work, or the storage is an array, a deep queue keeps it going: with two
/// compilers running, 64 MiB took 3.4 s, 128 MiB 3.0 s and 256 MiB 2.1 s for 4.25 GB (medians of 3).
const IN_FLIGHT_BYTES: u64 = 256 << 20;
/// A small load does with less: what is in flight is fresh memory, which costs more than reading.
const IN_FLIGHT_BYTES_MIN: u64 = 64 << 20;
/// A further engine has to have this much to do to be worth its thread.
const ENGINE_BYTES: u64 = 64 << 20;
/// One core copies some 6 GB/s out of the page cache; a GPU takes 55 GB/s.
const ENGINES_MAX: usize = 16;
/// Larger rings are not registered: all of it is faulted in before the first read.
const REGISTER_BYTES_MAX: u64 = 512 << 20;
/// Smaller ones are, whatever the load: that takes a few milliseconds.
const REGISTER_BYTES_MIN: u64 = 16 << 20;

/// How far ahead memory is faulted in where all comes over the network, which is slower than the
/// zeroing of memory: so that a load which is dropped as it comes touches no more than it needs.
const AHEAD_BYTES_REMOTE: usize = 32 << 20;

/// What a caller asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TuningRequest {
    pub engines: Option<usize>,
    pub connections: Option<usize>,
    pub read_bytes: Option<u64>,
}

/// The shape of a load's engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuning {
    pub engines: usize,
    pub depth: usize,
    pub chunk_bytes: u64,
    pub register: bool,
    /// Memory is faulted in so far ahead of the reads.
    pub ahead_bytes: usize,
}

impl Tuning {
    /// For a load of `total_bytes` through a ring of `ring_bytes`, as far as the caller `wants` nothing
    /// else.
    pub fn choose(
        wants: TuningRequest,
        ring_bytes: u64,
        total_bytes: u64,
        sources: &[Arc<dyn Source>],
    ) -> Self {
        // A lane is a connection there; how many of them are used at once is measured while loading.
        let lanes_remote = match sources.iter().any(|source| source.is_remote()) {
            true => wants.connections.unwrap_or(CONNECTIONS_MAX),
            false => 0,
        };
        let useful = (total_bytes / ENGINE_BYTES).max(1) as usize;
        let engines = wants.engines.unwrap_or_else(|| cores().min(ENGINES_MAX).min(useful));
        let block = sources.iter().map(|source| source.block_bytes() as u64).max().unwrap_or(1);
        let any_local = sources.iter().any(|source| !source.is_remote());
        // At least eight reads to a full ring; sixteen where each is a round trip.
        let reads = if lanes_remote > 0 { 16 } else { 8 };
        let fitting = (ring_bytes / reads).max(CHUNK_BYTES_MIN);
        let wanted = wants.read_bytes.map(|bytes| bytes.clamp(WANTED_BYTES_MIN, WANTED_BYTES_MAX));
        let chunk_bytes = wanted.unwrap_or(CHUNK_BYTES).min(fitting).next_multiple_of(block);
        let in_flight_bytes = (total_bytes / 16)
            .clamp(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_BYTES)
            .max(lanes_remote as u64 * chunk_bytes);
        // More lanes than reads that fit the ring would only wait.
        let in_flight = in_flight_bytes.min(ring_bytes).div_ceil(chunk_bytes).max(1) as usize;
        Self {
            engines,
            depth: in_flight.div_ceil(engines),
            chunk_bytes,
            register: any_local
                && ring_bytes < total_bytes
                && ring_bytes <= worth_registering(total_bytes),
            ahead_bytes: if any_local {
                (in_flight_bytes / 2) as usize
            } else {
                AHEAD_BYTES_REMOTE
            },
        }
    }
}

/// The largest ring that is registered for a load of `total_bytes`: an eighth of it, within bounds.
fn worth_registering(total_bytes: u64) -> u64 {
    (total_bytes / 8).clamp(REGISTER_BYTES_MIN, REGISTER_BYTES_MAX)
}
