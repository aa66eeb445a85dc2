//! Counts what a load does while it runs.

use crate::source::{Arrivals, BackendKind, Downgrade, LoadCounters, Via};
use crate::sync::Mutex;
use crate::timeline::Recorder;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The paths by which bytes are read, in the order of the enum.
const ALL_VIA: [Via; 5] = [Via::Direct, Via::Buffered, Via::Mapped, Via::Http, Via::Gds];

pub(crate) struct LoadStats {
    /// One count per path, indexed by `Via`.
    read_bytes: [AtomicU64; ALL_VIA.len()],
    /// Bytes whose checksum a GPU computed and which matched.
    pub device_verified_bytes: AtomicU64,
    /// The counters of the load's readers.
    pub counters: Arc<LoadCounters>,
    fallbacks: Mutex<Fallbacks>,
    recorder: Option<Arc<Recorder>>,
}

#[derive(Default)]
struct Fallbacks {
    /// The lowest backend that any engine used.
    backend: Option<BackendKind>,
    downgrades: Vec<Downgrade>,
}

impl LoadStats {
    /// Counts that start at zero. Downgrades and retries are also recorded by `recorder`, and bytes
    /// counted by `arrivals`.
    pub fn new(recorder: Option<Arc<Recorder>>, arrivals: Option<Arrivals>) -> Self {
        Self {
            read_bytes: Default::default(),
            device_verified_bytes: AtomicU64::new(0),
            counters: Arc::new(LoadCounters::new(recorder.clone(), arrivals)),
            fallbacks: Mutex::default(),
            recorder,
        }
    }

    pub fn read(&self, via: Via, bytes: u64) {
        self.read_bytes[via as usize].fetch_add(bytes, Ordering::Relaxed);
        self.counters.arrived(bytes);
    }

    pub fn backend(&self, backend: BackendKind) {
        let mut fallbacks = self.fallbacks.lock();
        let lowest = fallbacks.backend.map_or(backend, |lowest| lowest.min(backend));
        fallbacks.backend = Some(lowest);
    }

    /// Records a downgrade. The same step for the same reason is recorded once.
    pub fn downgrade(&self, downgrade: Downgrade) {
        let mut fallbacks = self.fallbacks.lock();
        if !fallbacks.downgrades.contains(&downgrade) {
            let Downgrade { from, to, why } = &downgrade;
            tracing::info!(from, to, why, "downgraded");
            crate::metrics::downgrade(from, to);
            if let Some(recorder) = &self.recorder {
                recorder.event("downgrade", format!("{from} -> {to}: {why}"));
            }
            fallbacks.downgrades.push(downgrade);
        }
    }

    pub fn lowest_backend(&self) -> Option<BackendKind> {
        self.fallbacks.lock().backend
    }

    pub fn downgrades(&self) -> Vec<Downgrade> {
        self.fallbacks.lock().downgrades.clone()
    }

    /// The number of bytes read by each path. Paths without bytes are left out.
    pub fn read_bytes(&self) -> BTreeMap<&'static str, u64> {
        let bytes = |via: Via| self.read_bytes[via as usize].load(Ordering::Relaxed);
        let all = ALL_VIA.map(|via| (via.as_str(), bytes(via)));
        all.into_iter().filter(|&(_, bytes)| bytes > 0).collect()
    }
}
