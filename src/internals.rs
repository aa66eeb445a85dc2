//! Parts of the library for this repository's own command, bindings, benchmarks and tests. They are
//! exempt from semantic versioning: anything here may change in any release.

pub use crate::checkpoint::{DescribedTensor, UNFINISHED_DOWNLOAD, shard_version};
pub use crate::checksum::{crc64_nvme, crc64_nvme_of_parts};
pub use crate::doctor::{
    has_several_nodes, node_of, numbers_in, probe_direct, probe_gds, probe_io_uring,
    probe_registration,
};
pub use crate::error::{Escaped, Interface, shown};
pub use crate::fork_guard::ForkGuard;
pub use crate::load::{
    HeldCheckpoint, HeldFile, MappedCheckpoint, OpenFiles, PlannedRuns, checkpoint_in_memory,
    checkpoint_of_ranges, described_checkpoint, planned_runs, sharing_pinned_ring,
    unpin_shared_ring,
};
#[cfg(feature = "http")]
pub use crate::load::{discard_corrupt, is_cached, stream_into_cache, unverified};
pub use crate::options::parse::parse_bytes;
pub use crate::plan::{Plan, Selection};
pub use crate::ring::{PAGE_BYTES, Ring, Window};
pub use crate::source::{
    BorrowedBytes, BorrowedMemory, ProgressPart, progress_part, resident_bytes,
};
pub use crate::sync::{Condvar, Mutex};
pub use crate::sys::{
    OutputFile, cgroup_memory, open_regular, read_small, read_small_text, spawn, spawn_scoped,
    system_memory,
};
