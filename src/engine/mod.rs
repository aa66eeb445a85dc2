//! Engines: one thread, one runtime, many reads in flight; the only place that joins ring, sources
//! and device.
//!
//! ```text
//!   Work (shared)            engine thread 0..N                           Queue (shared)
//!   next(): a window   -->   lane: reader.read_at ... fill   -->  complete()  -->  pop()
//!   of a free slot           lane: ...   (depth lanes)            full? place      the caller
//!        ^                                                        on the device       |
//!        +------------------ the slot is freed when its last tensor is dropped -------+
//! ```
//!
//! Slots of a GPU's tensors go to its [`DeviceTransfer`], which has threads of its own: an engine hands them
//! over and never waits for the GPU.
//!
//! Two read paths have no lanes, and threads that wait: `mapped`, and `gds`, where GPUs read by
//! themselves.
//!
//! A *lane* is one local task that takes a read, drives it to its end and takes the next; an engine
//! runs [`Job::depth`] of them, which is its queue depth. Lanes take work from one shared
//! [`Work`], so that engines balance by themselves.
//!
//! Stopping: [`LoadHandle`]'s drop (or the first error) sets a flag that every lane looks at between
//! attempts, and which ends its waits for a server. A lane is never dropped while its read is in flight: the engine joins its lanes, then
//! ends its runtime, then its thread; `LoadHandle` joins the threads, also those of the device transfers, which
//! wait for their copies first. So when `stop` returns, no operation of kernel or GPU is left and
//! every window is back.

mod chain;
mod completion_sink;
mod fill;
mod gds;
mod into;
mod mapped;
mod queue;
mod read_task;
mod record;
mod runtime;
mod schedule;
mod stats;

pub(crate) use chain::ChainedWork;
pub(crate) use gds::GdsWork;
pub(crate) use into::{BorrowedBuffer, IntoWork};
pub(crate) use mapped::MapWork;
pub(crate) use queue::Completion;
pub(crate) use schedule::{Destination, LoadWork};
pub(crate) use stats::Stats;

use crate::device::DeviceTransfer;
use crate::error::{Error, ErrorKind, Result};
use crate::numa::NumaAffinity;
use crate::options::ReadPath;
use crate::plan::Chunk;
use crate::ring::{Ring, Window};
use crate::source::{Check, Source, Stop};
use crate::timeline::Recorder;
use queue::Queue;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What engines do: shared by all of them.
pub(crate) trait Work: Send + Sync {
    /// The next read, or what else is to be done, for this engine.
    fn next(&self, engine: usize) -> Next;

    /// Takes a filled window back; gives what that completed.
    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Completion>>;

    /// How many full slots device transfers have and will give back by themselves.
    fn in_hand(&self) -> usize {
        0
    }

    /// Takes a new ring in the place of `ring`, all of which the caller holds; false where that
    /// cannot be.
    ///
    /// # Errors
    /// When the address space does not allow it.
    fn renew(&self, _ring: &Arc<Ring>) -> Result<bool> {
        Ok(false)
    }
}

/// What a lane does next.
pub(crate) enum Next {
    /// Read this.
    Read(Task),
    /// Hand this out; it needs no read.
    Deliver(Completion),
    /// Wait until a slot of this ring is freed: so many bytes are needed.
    Wait { ring: Arc<Ring>, need: usize },
    /// There is nothing left to begin.
    Finished,
}

/// One read and where it goes.
pub(crate) struct Task {
    /// Which of [`Job::sources`].
    pub source: usize,
    pub chunk: Chunk,
    pub window: Window,
    /// For [`Work::complete`].
    pub ticket: usize,
}

/// Everything a load's engines need besides the work.
pub(crate) struct Job {
    pub sources: Vec<Arc<dyn Source>>,
    /// The rings that windows come from; none when they are lent.
    pub rings: Vec<Arc<Ring>>,
    /// What takes the full slots of GPUs.
    pub transfers: Vec<Arc<dyn DeviceTransfer>>,
    pub read_path: ReadPath,
    pub engines: usize,
    /// The NUMA node whose cores the load's threads run on, if it stays near one.
    pub near: Option<Arc<NumaAffinity>>,
    /// Reads in flight an engine.
    pub depth: usize,
    /// The ring whose memory is registered with io_uring, if one is.
    pub register: Option<Arc<Ring>>,
    /// How far ahead of the reads to fault memory in, where it is not registered.
    pub ahead_bytes: usize,
    /// How long a caller may wait for tensors while holding all memory before that is an error.
    pub hold_timeout: Duration,
    /// Whether the caller may instead keep all of it, and the load goes on in new memory.
    pub caller_may_retain_all: bool,
    /// Whether to check the bytes of all sources that were opened with their checksums.
    pub verify: bool,
    /// Takes down what happens, if anybody wants to know.
    pub recorder: Option<Arc<Recorder>>,
}

/// What the engines of a load and its caller share.
pub(crate) struct Shared {
    pub job: Job,
    pub queue: Queue,
    pub stats: Stats,
    /// Reads that lanes have taken and not handed out yet.
    in_flight: AtomicUsize,
    stop: Arc<Stop>,
    /// Of each of the job's sources, where their bytes are checked.
    checks: Vec<Option<Arc<Check>>>,
    engines_left: AtomicUsize,
    /// Engines and device transfers.
    workers_left: AtomicUsize,
}

impl Shared {
    pub fn is_cancelled(&self) -> bool {
        self.stop.is_set()
    }

    /// Stops the load: lanes end at their next look, waiting ones are woken.
    pub fn cancel(&self) {
        self.stop.set();
        self.job.rings.iter().for_each(|ring| ring.close());
        self.job.transfers.iter().for_each(|transfer| transfer.close());
    }

    /// Ends the load with `error`; the first one counts.
    pub fn fail(&self, error: Error) {
        if error.kind() != ErrorKind::Cancelled {
            tracing::debug!(%error, "load failed");
            self.queue.fail(error);
        }
        self.cancel();
    }

    /// Runs a worker's `body` so that even a bug in it ends the load with an error, not a hang.
    fn guard(&self, body: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            self.fail(Error::new(ErrorKind::Io, "a thread of the load panicked; this is a bug"));
        }
    }

    /// When the last engine has ended, nothing more comes to the device transfers.
    fn engine_ended(&self) {
        if self.engines_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.job.transfers.iter().for_each(|transfer| transfer.close());
        }
        self.worker_ended();
    }

    /// When the last engine and device transfer have ended, nothing more comes to the caller.
    fn worker_ended(&self) {
        if self.workers_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.close();
        }
    }
}

/// The engines of one load. Dropping it stops and drains them.
pub(crate) struct LoadHandle {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl LoadHandle {
    /// Starts the engines of `job`, to do `work`.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start(job: Job, work: Arc<dyn Work>) -> Result<Self> {
        let engines = job.engines.max(1);
        if let Some(ring) = &job.register {
            let began = Instant::now();
            // Registering faults in what is missing, on one thread; all together are faster.
            if let Err(refusal) = ring.populate(ring.capacity(), engines) {
                tracing::debug!(%refusal, "the ring's memory is faulted in as it is used");
            }
            if let Some(recorder) = &job.recorder {
                recorder.step("fault in", None, began);
            }
        }
        let is_registered = |ring: &Arc<Ring>| {
            job.register.as_ref().is_some_and(|registered| Arc::ptr_eq(registered, ring))
        };
        let populate: Vec<_> =
            job.rings.iter().filter(|ring| !is_registered(ring)).cloned().collect();
        let ahead_bytes = job.ahead_bytes;
        let mut running = Self::start_engines(job, move |shared, engine| {
            runtime::run(shared, &work, engine);
        })?;
        for ring in populate {
            running.spawn("ringload-memory".to_owned(), move || {
                ring.populate_ahead(ahead_bytes);
            })?;
        }
        Ok(running)
    }

    /// Starts threads that map instead of read.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start_mapped(job: Job, work: Arc<MapWork>) -> Result<Self> {
        Self::start_engines(job, move |shared, engine| work.run(shared, engine))
    }

    /// Starts threads that let GPUs read.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start_gds(job: Job, work: Arc<GdsWork>) -> Result<Self> {
        Self::start_engines(job, move |shared, engine| work.run(shared, engine))
    }

    /// Starts the job's threads, each to run `body` with its number.
    fn start_engines(
        job: Job,
        body: impl Fn(&Arc<Shared>, usize) + Clone + Send + 'static,
    ) -> Result<Self> {
        let engines = job.engines.max(1);
        let transfers = job.transfers.clone();
        let check = |source: &Arc<dyn Source>| source.check().filter(|_| job.verify);
        let shared = Shared {
            checks: job.sources.iter().map(check).collect(),
            queue: Queue::new(),
            stats: Stats::new(job.recorder.clone()),
            in_flight: AtomicUsize::new(0),
            stop: Arc::default(),
            engines_left: AtomicUsize::new(engines),
            workers_left: AtomicUsize::new(engines + transfers.len()),
            job,
        };
        let mut running = Self { shared: Arc::new(shared), threads: Vec::new() };
        for transfer in transfers {
            let shared = Arc::clone(&running.shared);
            running.spawn(format!("ringload-{}", transfer.device()), move || {
                shared.guard(|| {
                    if let Err(error) = transfer.run(&*shared) {
                        shared.fail(error);
                    }
                });
                shared.worker_ended();
            })?;
        }
        for engine in 0..engines {
            let (shared, body) = (Arc::clone(&running.shared), body.clone());
            running.spawn(format!("ringload-{engine}"), move || {
                shared.guard(|| body(&shared, engine));
                shared.engine_ended();
            })?;
        }
        Ok(running)
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let near = self.shared.job.near.clone();
        let settled = move || {
            near.iter().for_each(|near| near.bind_thread());
            body();
        };
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(settled)
            .map_err(|e| Error::from_io("start an engine thread", e))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The next thing that is done, waiting for it; `None` when all is.
    pub fn pop(&self) -> Option<Result<Completion>> {
        self.shared.queue.pop()
    }

    /// As [`pop`](Self::pop), for async callers.
    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Completion>>> {
        self.shared.queue.poll_pop(cx)
    }

    /// What was read so far, and how.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What has happened so far, if it is taken down.
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.shared.job.recorder.as_ref()
    }

    /// How many objects had the checksum that their store keeps.
    pub fn verified_objects(&self) -> usize {
        self.shared.checks.iter().flatten().filter(|check| check.is_right()).count()
    }

    /// Fails if an object was to be checked and was not; for when all was read.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], naming the object.
    pub fn check_verified(&self) -> Result<()> {
        let mut checks = self.shared.checks.iter().flatten();
        checks.find(|check| !check.is_right()).map_or(Ok(()), |check| Err(check.unseen()))
    }

    /// The ring, if the load has one.
    #[cfg(test)]
    pub fn ring(&self) -> Option<&Arc<Ring>> {
        self.shared.job.rings.first()
    }

    /// How many engines run.
    pub fn engines(&self) -> usize {
        self.shared.job.engines.max(1)
    }

    /// The NUMA node that they stay near to.
    pub fn numa_node(&self) -> Option<usize> {
        self.shared.job.near.as_ref().map(|near| near.node)
    }

    /// A handle that cancels the load from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { shared: Arc::downgrade(&self.shared) }
    }

    /// Stops the engines and waits until nothing of them is left.
    pub fn stop(&mut self) {
        self.shared.cancel();
        for thread in self.threads.drain(..) {
            // A panic was already reported by `guard`.
            drop(thread.join());
        }
    }
}

/// Cancels a load from another thread.
#[derive(Clone)]
pub(crate) struct CancelHandle {
    shared: std::sync::Weak<Shared>,
}

impl CancelHandle {
    /// Cancels the load without waiting until its threads have ended. Its caller then gets no
    /// further tensors.
    #[cfg_attr(not(feature = "capi"), expect(dead_code, reason = "only the C library cancels"))]
    pub fn cancel(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.cancel();
        }
    }
}

impl Drop for LoadHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
