//! How many engines, how deep, how large the reads: chosen from the load and the machine.

use crate::options::cores;
use crate::source::Source;
use std::sync::Arc;

/// One read. Larger ones gain nothing on the disks measured, smaller ones cost CPU.
const CHUNK_BYTES: u64 = 4 << 20;
/// Reads never get smaller than this to suit a small ring.
const CHUNK_BYTES_MIN: u64 = 256 << 10;
/// Bytes in flight over all engines.
const IN_FLIGHT_BYTES: u64 = 64 << 20;
/// A further engine has to have this much to do to be worth its thread.
const ENGINE_BYTES: u64 = 64 << 20;
const ENGINES_MAX: usize = 8;
/// Larger rings are not registered: that would fault all of it in before the first read.
const REGISTER_BYTES_MAX: u64 = 512 << 20;

/// The shape of a load's engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuning {
    pub engines: usize,
    pub depth: usize,
    pub chunk_bytes: u64,
    pub register: bool,
}

impl Tuning {
    /// For a load of `total_bytes` through a ring of `ring_bytes`.
    pub fn choose(
        engines: Option<usize>,
        ring_bytes: u64,
        total_bytes: u64,
        sources: &[Arc<dyn Source>],
    ) -> Self {
        let useful = (total_bytes / ENGINE_BYTES).max(1) as usize;
        let engines = engines.unwrap_or_else(|| cores().min(ENGINES_MAX).min(useful));
        let block = sources.iter().map(|source| source.block_bytes() as u64).max().unwrap_or(1);
        // At least eight reads to a full ring.
        let chunk_bytes =
            CHUNK_BYTES.min((ring_bytes / 8).max(CHUNK_BYTES_MIN)).next_multiple_of(block);
        let in_flight = IN_FLIGHT_BYTES.div_ceil(chunk_bytes) as usize;
        Self {
            engines,
            depth: in_flight.div_ceil(engines),
            chunk_bytes,
            register: ring_bytes < total_bytes && ring_bytes <= REGISTER_BYTES_MAX,
        }
    }
}
