//! Starting, watching and stopping the threads of a load.

use super::gds::GdsWork;
use super::job::Job;
use super::load_stats::LoadStats;
use super::mapped::MappedWork;
use super::queue::Completion;
use super::runtime;
use super::shared::Shared;
use super::work::Work;
use crate::checks::PartChecks;
use crate::error::Result;
use crate::ring::Ring;
use crate::source::{Cancellable, ChecksumVerifier, Verified};
use crate::sys;
use crate::timeline::Recorder;
#[cfg(feature = "http")]
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

/// The read path of a load and its work.
pub(crate) enum EngineWork {
    /// Read chunks into windows, many at a time.
    Reads(Arc<dyn Work>),
    /// Map files.
    Mapped(MappedWork),
    /// Let GPUs read files.
    Gds(GdsWork),
}

impl EngineWork {
    fn run(&self, shared: &Arc<Shared>, engine: usize) {
        match self {
            Self::Reads(work) => runtime::run(shared, work, engine),
            Self::Mapped(work) => work.run(shared, engine),
            Self::Gds(work) => work.run(shared, engine),
        }
    }
}

/// The running threads of one load. Dropping it stops the load and waits for them.
pub(crate) struct LoadHandle {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl LoadHandle {
    /// Starts the threads of `job`, with its engines doing `work`.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start(job: Job, work: EngineWork) -> Result<Self> {
        let engines = job.engines.max(1);
        let work = Arc::new(work);
        let mut handle = Self { shared: Arc::new(Shared::new(job)), threads: Vec::new() };
        let shared = Arc::clone(&handle.shared);
        let cancellable: Arc<dyn Cancellable> = shared.clone();
        shared.job.cancellation.attach(&cancellable);
        for transfer in &shared.job.transfers {
            let (shared, transfer) = (Arc::clone(&shared), Arc::clone(transfer));
            handle.spawn(format!("ringload-{}", transfer.device()), move || {
                shared.guard(|| {
                    if let Err(error) = transfer.run(&*shared) {
                        shared.fail(error);
                    }
                });
                shared.worker_ended();
            })?;
        }
        // Meanwhile a transfer creates its context, which takes longer.
        fault_in_registered(&shared.job, engines);
        for engine in 0..engines {
            let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
            handle.spawn(format!("ringload-{engine}"), move || {
                shared.guard(|| work.run(&shared, engine));
                shared.engine_ended();
            })?;
        }
        let Job { rings, register, ahead_bytes, .. } = &shared.job;
        let is_registered = |ring| register.as_ref().is_some_and(|other| Arc::ptr_eq(other, ring));
        for ring in rings.iter().filter(|ring| !is_registered(ring)) {
            let (ring, ahead_bytes) = (Arc::clone(ring), *ahead_bytes);
            handle.spawn("ringload-memory".to_owned(), move || ring.populate_ahead(ahead_bytes))?;
        }
        Ok(handle)
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let (affinity, span) = (self.shared.job.affinity.clone(), self.shared.job.span.clone());
        let bound = move || {
            let _entered = span.enter();
            affinity.iter().for_each(|affinity| affinity.bind_thread());
            body();
        };
        self.threads.push(sys::spawn(name, bound)?);
        Ok(())
    }

    /// Waits for the next completion. `None` once everything was delivered.
    pub fn pop(&self) -> Option<Result<Completion>> {
        self.shared.queue.pop()
    }

    /// As [`pop`](Self::pop), for async callers.
    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Completion>>> {
        self.shared.queue.poll_pop(cx)
    }

    /// The counts of what was read so far.
    pub fn stats(&self) -> &LoadStats {
        &self.shared.stats
    }

    /// The recorder of the load's timeline, where one was requested.
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.shared.job.recorder.as_ref()
    }

    /// The verifiers of whole files and objects.
    fn verifiers(&self) -> impl Iterator<Item = &Arc<ChecksumVerifier>> {
        let of_sources = self.shared.checks.iter().flatten();
        of_sources.chain(self.shared.job.checks.verifiers.iter().flatten())
    }

    /// How many objects matched the checksums that their stores keep.
    pub fn verified_objects(&self) -> usize {
        let sources = self.shared.job.sources.iter().zip(&self.shared.checks);
        let is_verified = |check: &Option<Arc<ChecksumVerifier>>| {
            check.as_ref().is_some_and(|check| check.is_verified())
        };
        sources.filter(|(source, check)| source.verifies_reads() && is_verified(check)).count()
    }

    /// The files and objects that matched their checksums so far.
    pub fn verified_against(&self) -> Vec<Verified> {
        self.verifiers().filter_map(|verifier| verifier.verified()).collect()
    }

    /// The complete files of the cache whose bytes do not have the checksums that the load compares
    /// them with.
    #[cfg(feature = "http")]
    pub fn corrupt_files(&self) -> Vec<PathBuf> {
        let verifiers = self.shared.job.checks.verifiers.iter().zip(&self.shared.job.sources);
        let is_corrupt = |of: &Option<Arc<ChecksumVerifier>>| of.iter().any(|it| it.is_corrupt());
        let corrupt = verifiers.filter(|(verifier, _)| is_corrupt(verifier));
        corrupt.filter_map(|(_, source)| source.cached_file()).collect()
    }

    /// How many parts of files matched their checksums so far.
    pub fn verified_parts(&self) -> u64 {
        self.shared.job.checks.parts.as_ref().map_or(0, PartChecks::taken)
    }

    /// Fails if the load did not pass its checks, or if a file or object that was to be verified was
    /// not. To be called when everything was read.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming the location, and
    /// [`ErrorKind::NotFinite`](crate::ErrorKind::NotFinite), naming tensors.
    pub fn check_passed(&self) -> Result<()> {
        let incomplete = self.verifiers().find(|verifier| !verifier.is_verified());
        incomplete.map_or(Ok(()), |verifier| Err(verifier.incomplete_error()))?;
        self.shared.job.checks.result()
    }

    /// Fails if the tensors that were read so far hold NaN or infinity and the load checks that.
    ///
    /// # Errors
    /// [`ErrorKind::NotFinite`](crate::ErrorKind::NotFinite).
    pub fn check_finite(&self) -> Result<()> {
        self.shared.job.checks.finite.as_ref().map_or(Ok(()), |finite| finite.result())
    }

    /// The first ring of the load, if it has one.
    pub fn ring(&self) -> Option<&Arc<Ring>> {
        self.shared.job.rings.first()
    }

    /// How many engines run.
    pub fn engines(&self) -> usize {
        self.shared.job.engines.max(1)
    }

    /// The NUMA node that the threads are bound to, if any.
    pub fn numa_node(&self) -> Option<usize> {
        self.shared.job.affinity.as_ref().map(|affinity| affinity.node)
    }

    /// Tells the threads of the load to end, without waiting until they have.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    /// Whether all threads have ended, so that [`stop`](Self::stop) does not wait.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Takes the threads out, for another thread to wait for. Those of this handle have then ended.
    pub fn take(&mut self) -> Self {
        Self { shared: Arc::clone(&self.shared), threads: std::mem::take(&mut self.threads) }
    }

    /// Stops the load and waits until its threads have ended.
    pub fn stop(&mut self) {
        if self.threads.is_empty() {
            return; // another load may use the ring by now
        }
        self.shared.cancel();
        for thread in self.threads.drain(..) {
            // A panic was already reported by `Shared::guard`.
            drop(thread.join());
        }
    }
}

impl Drop for LoadHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Faults in the memory of the ring that is to be registered, on as many threads as there are
/// engines. Otherwise registering would fault it in on one thread, which is slower.
fn fault_in_registered(job: &Job, engines: usize) {
    let Some(ring) = &job.register else { return };
    let began = Instant::now();
    if let Err(refusal) = ring.populate(ring.capacity(), engines) {
        tracing::debug!(%refusal, "the ring's memory is faulted in as it is used");
    }
    if let Some(recorder) = &job.recorder {
        recorder.step("fault in", None, began);
    }
}
