//! What a load did, for people and for `--json`.

use crate::engine::LoadHandle;
use crate::options::Device;
use crate::source::{BackendKind, Downgrade};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// What a load did.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Bytes of the tensors handed out.
    pub bytes: u64,
    /// How many tensors were handed out.
    pub tensors: usize,
    /// How many of them were cast on the way ([`Loader::dtype`](crate::Loader::dtype)).
    pub cast_tensors: usize,
    /// Bytes of the tensors handed out, by the device that they are on.
    pub device_bytes: BTreeMap<Device, u64>,
    /// From the call to the last tensor, opening the checkpoint included where the call does that.
    pub seconds: f64,
    /// How many engines ran.
    pub engines: usize,
    /// The last backend of the fallback chain that was used: `uring+registered`, `uring` or `pread`; `none`
    /// where no engine read a file (objects, mapped files, files read by a GPU, or no bytes).
    pub backend: &'static str,
    /// The NUMA node of the GPUs, where a machine has several: engines and ring were put near to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<usize>,
    /// Bytes read, by how they came (`direct`, `buffered`, `mapped`, `http`, `gds`).
    pub read_bytes: BTreeMap<&'static str, u64>,
    /// The memory limit in force, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// The size of the ring, in bytes: address space without a limit, memory with one.
    pub ring_bytes: u64,
    /// The steps taken down the ladder, each once.
    pub downgrades: Vec<Downgrade>,
    /// What had to be asked for again, by reason: `interrupted` (EINTR, EAGAIN, ECANCELED) for
    /// files; `connect`, `reset`, `truncated`, `timeout`, `stalled`, `server error`, `throttled`,
    /// `late` (asked again on another connection), ... for objects.
    pub retries: BTreeMap<&'static str, u64>,
    /// How many objects were checked against the checksum that their store keeps, and were right.
    pub verified_objects: usize,
    /// How many bytes GPUs have summed up, for [`Loader::verify`](crate::Loader::verify), and found to
    /// be what host memory held.
    pub verified_device_bytes: u64,
    /// Bytes that came out of the local file cache; they are among [`read_bytes`](Self::read_bytes).
    pub cached_bytes: u64,
    /// Bytes that were not written to the cache, since they came too fast for its disk under the
    /// memory limit. A later load adds them.
    pub cache_left_out_bytes: u64,
    /// Why the cache did less than it should, if so.
    pub cache_trouble: Option<String>,
}

impl Summary {
    /// What the engines of a load did; what was handed out, and how long it took, is the caller's
    /// to fill in.
    pub(super) fn of(running: &LoadHandle) -> Self {
        let stats = running.stats();
        Self {
            engines: running.engines(),
            numa_node: running.numa_node(),
            backend: stats.lowest_backend().map_or("none", BackendKind::as_str),
            read_bytes: stats.read_bytes(),
            downgrades: stats.downgrades(),
            retries: stats.counters.counts(),
            verified_objects: running.verified_objects(),
            verified_device_bytes: stats.device_verified_bytes.load(Ordering::Relaxed),
            cached_bytes: stats.counters.cached_bytes(),
            cache_left_out_bytes: stats.counters.left_out_bytes(),
            cache_trouble: stats.counters.trouble(),
            ..Self::default()
        }
    }

    /// Tensor bytes a second, in units of 10^9.
    pub fn gigabytes_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 / self.seconds / 1e9 } else { 0.0 }
    }

    /// How the bytes came, most first: `direct`, `direct+buffered`, ...; `none` if there were none.
    pub fn read_path(&self) -> String {
        let mut ways: Vec<_> = self.read_bytes.iter().collect();
        ways.sort_by(|a, b| b.1.cmp(a.1));
        if ways.is_empty() {
            return "none".to_owned();
        }
        ways.into_iter().map(|(way, _)| *way).collect::<Vec<_>>().join("+")
    }
}
