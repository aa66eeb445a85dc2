//! What a load did, counted while it runs.

use crate::source::{BackendKind, Downgrade, LoadCounters, Via};
use crate::timeline::Recorder;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Stats {
    direct_bytes: AtomicU64,
    buffered_bytes: AtomicU64,
    mapped_bytes: AtomicU64,
    http_bytes: AtomicU64,
    /// What GPUs have summed up and found right.
    pub device_verified_bytes: AtomicU64,
    gds_bytes: AtomicU64,
    /// What had to be asked for again, by reason.
    pub counters: Arc<LoadCounters>,
    ladder: Mutex<Ladder>,
    recorder: Option<Arc<Recorder>>,
}

#[derive(Default)]
struct Ladder {
    /// The lowest rung that any engine used.
    rung: Option<BackendKind>,
    downgrades: Vec<Downgrade>,
}

impl Stats {
    /// Of nothing yet; the recorder, if any, is told of what went otherwise than wanted.
    pub fn new(recorder: Option<Arc<Recorder>>) -> Self {
        Self {
            direct_bytes: AtomicU64::new(0),
            buffered_bytes: AtomicU64::new(0),
            mapped_bytes: AtomicU64::new(0),
            http_bytes: AtomicU64::new(0),
            device_verified_bytes: AtomicU64::new(0),
            gds_bytes: AtomicU64::new(0),
            counters: Arc::new(LoadCounters::recorded(recorder.clone())),
            ladder: Mutex::default(),
            recorder,
        }
    }

    pub fn read(&self, via: Via, bytes: u64) {
        self.bytes_of(via).fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn rung(&self, rung: BackendKind) {
        let mut ladder = self.ladder();
        ladder.rung = Some(ladder.rung.map_or(rung, |so_far| so_far.min(rung)));
    }

    /// Records a step down; the same step for the same reason counts once.
    pub fn downgrade(&self, downgrade: Downgrade) {
        let mut ladder = self.ladder();
        if !ladder.downgrades.contains(&downgrade) {
            let Downgrade { from, to, why } = &downgrade;
            tracing::info!(from, to, why, "downgraded");
            crate::metrics::downgrade(from, to);
            if let Some(recorder) = &self.recorder {
                recorder.moment("downgrade", format!("{from} -> {to}: {why}"));
            }
            ladder.downgrades.push(downgrade);
        }
    }

    pub fn lowest_rung(&self) -> Option<BackendKind> {
        self.ladder().rung
    }

    pub fn downgrades(&self) -> Vec<Downgrade> {
        self.ladder().downgrades.clone()
    }

    /// Bytes by how they came; ways that were not used are left out.
    pub fn read_bytes(&self) -> BTreeMap<&'static str, u64> {
        [Via::Direct, Via::Buffered, Via::Mapped, Via::Http, Via::Gds]
            .map(|via| (via.as_str(), self.bytes_of(via).load(Ordering::Relaxed)))
            .into_iter()
            .filter(|&(_, bytes)| bytes > 0)
            .collect()
    }

    fn bytes_of(&self, via: Via) -> &AtomicU64 {
        match via {
            Via::Direct => &self.direct_bytes,
            Via::Buffered => &self.buffered_bytes,
            Via::Mapped => &self.mapped_bytes,
            Via::Http => &self.http_bytes,
            Via::Gds => &self.gds_bytes,
        }
    }

    fn ladder(&self) -> MutexGuard<'_, Ladder> {
        self.ladder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
