//! The inputs of a load's engines besides their work.

use super::destination::Destination;
use crate::checks::LoadChecks;
use crate::device::DeviceTransfer;
use crate::numa::NumaAffinity;
use crate::options::ReadPath;
use crate::ring::Ring;
use crate::source::{Arrivals, Cancellation, Source};
use crate::timeline::Recorder;
use std::sync::Arc;
use std::time::Duration;
use tracing::Span;

/// The inputs of a load's engines besides their work.
pub(crate) struct Job {
    pub sources: Vec<Arc<dyn Source>>,
    /// The rings that windows come from. Empty where the caller lends the memory.
    pub rings: Vec<Arc<Ring>>,
    /// The device transfers that take the full slots of GPUs.
    pub transfers: Vec<Arc<dyn DeviceTransfer>>,
    pub read_path: ReadPath,
    pub engines: usize,
    /// The NUMA node whose cores the load's threads run on, if they are bound to one.
    pub affinity: Option<Arc<NumaAffinity>>,
    /// Reads in flight per engine, of files.
    pub depth: usize,
    /// How many ranges of objects are requested at once at first, by all engines together; 0 if the
    /// sources are files.
    pub connections: usize,
    /// The ring whose memory is registered with io_uring, if any.
    pub register: Option<Arc<Ring>>,
    /// How far ahead of the reads, in bytes, the memory of unregistered rings is faulted in.
    pub ahead_bytes: usize,
    /// How long a caller may wait for tensors while it holds all memory before the load fails.
    pub hold_timeout: Duration,
    /// Whether the caller may keep all memory of the load. The load then goes on in a new ring.
    pub caller_may_retain_all: bool,
    /// Whether to verify all sources that were opened with their checksums.
    pub verify: bool,
    /// Whether the load reads every byte of its sources.
    pub is_whole: bool,
    /// What the load checks of its bytes besides the checksums of its sources.
    pub checks: Arc<LoadChecks>,
    /// Ends the load.
    pub cancellation: Cancellation,
    /// Records the load's timeline, where one was requested.
    pub recorder: Option<Arc<Recorder>>,
    /// Counts the bytes of the load for those who watch it.
    pub arrivals: Option<Arrivals>,
    /// The span of the reads, which the load's threads enter.
    pub span: Span,
}

impl Job {
    /// Sets the rings that windows come from, and the device transfers of the `destinations`.
    pub fn use_rings(&mut self, rings: Vec<Arc<Ring>>, destinations: &[Destination]) {
        self.rings = rings;
        self.transfers = destinations.iter().filter_map(|to| to.transfer.clone()).collect();
    }
}
