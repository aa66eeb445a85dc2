//! The summary of a load, for people and for `--json`.

use crate::engine::LoadHandle;
use crate::options::Device;
use crate::source::{BackendKind, Downgrade, Verified};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// The statistics of a load.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("model.safetensors");
/// # let norm = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &[0; 24])?;
/// # safetensors::serialize_to_file([("norm", norm)], None, &path)?;
/// let model = ringload::Loader::new().load(&path)?;
/// let summary = model.summary();
/// println!("{} bytes in {:.3} s by {}", summary.bytes, summary.seconds, summary.read_path());
/// for downgrade in &summary.downgrades {
///     println!("{} instead of {}: {}", downgrade.to, downgrade.from, downgrade.why);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Bytes of the tensors that were handed to the caller.
    pub bytes: u64,
    /// How many tensors were handed to the caller.
    pub tensors: usize,
    /// How many of these tensors were cast ([`Loader::dtype`](crate::Loader::dtype)).
    pub cast_tensors: usize,
    /// Bytes of the tensors that were handed to the caller, by device.
    pub device_bytes: BTreeMap<Device, u64>,
    /// Seconds from the call to the last tensor, including the time for opening the checkpoint if
    /// the call opens it.
    pub seconds: f64,
    /// How many engines ran.
    pub engines: usize,
    /// The last backend of the fallback chain that was used: `uring+registered`, `uring` or `pread`;
    /// `none` if no engine read a file (objects, mapped files, files read by a GPU, or no bytes).
    pub backend: &'static str,
    /// The NUMA node of the GPUs to which engines and ring were bound. `None` if nothing was bound,
    /// as on a machine with one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<usize>,
    /// Bytes read, by the path they took (`direct`, `buffered`, `mapped`, `http`, `gds`).
    pub read_bytes: BTreeMap<&'static str, u64>,
    /// The memory limit in force, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// The size of the rings, in bytes: address space without a limit, memory with one.
    pub ring_bytes: u64,
    /// The downgrades to slower paths, each once.
    pub downgrades: Vec<Downgrade>,
    /// Retries, by reason: `interrupted` (EINTR, EAGAIN, ECANCELED) for files; `connect`, `reset`,
    /// `truncated`, `timeout`, `stalled`, `server error`, `throttled`, `hedged` (a late response
    /// was requested again on another connection), ... for objects.
    pub retries: BTreeMap<&'static str, u64>,
    /// How many objects matched the checksums that their stores keep.
    pub verified_objects: usize,
    /// The files and objects that were verified as a whole, each with what it was compared with.
    pub verified_against: Vec<Verified>,
    /// How many tensors matched the checksums of the manifest
    /// ([`Loader::manifest`](crate::Loader::manifest)). Tensors without bytes do not count.
    pub verified_tensors: u64,
    /// How many bytes on GPUs had the same checksums as in host memory
    /// ([`Loader::verify`](crate::Loader::verify)).
    pub verified_device_bytes: u64,
    /// Bytes that were read from the local file cache. [`read_bytes`](Self::read_bytes) includes them.
    pub cached_bytes: u64,
    /// Bytes that were not written to the cache because its disk was too slow under the memory
    /// limit. A later load adds them.
    pub cache_left_out_bytes: u64,
    /// The first problem of the cache, if there was one.
    pub cache_warning: Option<String>,
}

impl Summary {
    /// The statistics of the engines of a load. The caller adds the tensors that were handed out
    /// and the time.
    pub(super) fn of(handle: &LoadHandle) -> Self {
        let stats = handle.stats();
        Self {
            engines: handle.engines(),
            numa_node: handle.numa_node(),
            backend: stats.lowest_backend().map_or("none", BackendKind::as_str),
            read_bytes: stats.read_bytes(),
            downgrades: stats.downgrades(),
            retries: stats.counters.counts(),
            verified_objects: handle.verified_objects(),
            verified_against: handle.verified_against(),
            verified_tensors: handle.verified_parts(),
            verified_device_bytes: stats.device_verified_bytes.load(Ordering::Relaxed),
            cached_bytes: stats.counters.cached_bytes(),
            cache_left_out_bytes: stats.counters.left_out_bytes(),
            cache_warning: stats.counters.warning(),
            ..Self::default()
        }
    }

    /// Adds the statistics of a load that continues this one. Its engines and its backend count.
    pub(super) fn add(&mut self, next: &Self) {
        let before = std::mem::replace(self, next.clone());
        self.bytes += before.bytes;
        self.tensors += before.tensors;
        self.cast_tensors += before.cast_tensors;
        add_each(&mut self.device_bytes, before.device_bytes);
        self.seconds += before.seconds;
        add_each(&mut self.read_bytes, before.read_bytes);
        self.ring_bytes = self.ring_bytes.max(before.ring_bytes);
        self.memory_limit_bytes = self.memory_limit_bytes.or(before.memory_limit_bytes);
        let later = std::mem::replace(&mut self.downgrades, before.downgrades);
        let new: Vec<_> = later.into_iter().filter(|it| !self.downgrades.contains(it)).collect();
        self.downgrades.extend(new);
        add_each(&mut self.retries, before.retries);
        self.verified_tensors += before.verified_tensors;
        self.verified_device_bytes += before.verified_device_bytes;
        self.cached_bytes += before.cached_bytes;
        self.cache_left_out_bytes += before.cache_left_out_bytes;
        self.cache_warning = before.cache_warning.or(self.cache_warning.take());
    }

    /// The throughput in gigabytes (10^9 bytes) of tensors per second.
    pub fn gigabytes_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 / self.seconds / 1e9 } else { 0.0 }
    }

    /// The paths by which bytes were read, the one with most bytes first: `direct`,
    /// `direct+buffered`, ...; `none` if no bytes were read.
    pub fn read_path(&self) -> String {
        let mut paths: Vec<_> = self.read_bytes.iter().collect();
        paths.sort_by(|a, b| b.1.cmp(a.1));
        if paths.is_empty() {
            return "none".to_owned();
        }
        paths.into_iter().map(|(path, _)| *path).collect::<Vec<_>>().join("+")
    }
}

/// Adds the numbers of `others` to those of the same keys.
fn add_each<K: Ord>(numbers: &mut BTreeMap<K, u64>, others: BTreeMap<K, u64>) {
    for (key, number) in others {
        *numbers.entry(key).or_default() += number;
    }
}
