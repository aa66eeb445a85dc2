//! A read task: takes a read, completes it, and takes the next one.
//!
//! An engine has more read tasks while the objects' server turns out to have room for more ranges.

use super::fill::fill;
use super::job::Job;
use super::shared::Shared;
use super::waits::EngineWaits;
use super::work::{ChunkRead, ChunkRequest, NextStep, Work};
use crate::error::{Error, ErrorKind, Result, Size};
use crate::plan::Chunk;
use crate::ring::{Ring, RingUsage};
use crate::source::{Access, Backend, ChecksumVerifier, RangeAnswer, Reader};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::task::JoinSet;

/// How many readers an engine keeps open. A checkpoint is read shard by shard, so few sources are in
/// use at once.
const READERS_MAX: usize = 4;

/// How many read tasks an engine has at least for ranges, if its share of the connections permits it.
const TASKS_MIN: usize = 8;

/// How often a read task that waits for memory checks whether the caller holds all of it: an interval
/// between these bounds.
const HOLD_CHECK_INTERVALS: (Duration, Duration) =
    (Duration::from_millis(5), Duration::from_secs(1));

/// The same interval where the caller may retain all memory: a new ring is then created at once.
const RETAIN_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Ends the load if the task that holds it panics, as others may wait for the task's bytes.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(ErrorKind::Io, "a read task panicked; this is a bug"));
        }
    }
}

/// The state that the read tasks of one engine share.
pub(super) struct Engine {
    shared: Arc<Shared>,
    work: Arc<dyn Work>,
    access: Access,
    readers: RefCell<VecDeque<(usize, Rc<dyn Reader>)>>,
    number: usize,
    /// The read tasks that were started and have not ended.
    tasks: RefCell<JoinSet<()>>,
    running: Cell<usize>,
    /// The read tasks with an answer that waits for memory.
    waiting: Cell<usize>,
    /// Whether no read is left to begin.
    finished: Cell<bool>,
    /// Present where a timeline was requested.
    waits: Option<EngineWaits>,
}

/// Counts a read task as running until it is dropped.
struct RunningTask<'a>(&'a Cell<usize>);

impl Drop for RunningTask<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Engine {
    /// The engine with this number.
    pub fn new(
        shared: Arc<Shared>,
        work: Arc<dyn Work>,
        backend: Backend,
        number: usize,
    ) -> Rc<Self> {
        let (path, stop) = (shared.job.read_path, Arc::clone(&shared.stop));
        let access = Access::new(backend, path, stop, Arc::clone(&shared.stats.counters));
        let recorder = shared.job.recorder.clone();
        let waits = recorder.map(|recorder| EngineWaits::new(recorder, number, 0));
        let (readers, tasks) = (RefCell::default(), RefCell::default());
        let (running, waiting, finished) = (Cell::new(0), Cell::new(0), Cell::new(false));
        Rc::new(Self {
            shared,
            work,
            access,
            readers,
            number,
            tasks,
            running,
            waiting,
            finished,
            waits,
        })
    }

    /// Runs read tasks until all of them have ended.
    pub async fn drive(self: Rc<Self>) {
        let counters = Arc::clone(&self.shared.stats.counters);
        loop {
            let mut changed = std::pin::pin!(counters.connections_changed());
            // Registered before the number is read, so that no change is missed.
            changed.as_mut().enable();
            self.start_tasks();
            // Joined as they end, not in order: other tasks may wait for memory that a panicked task
            // held.
            let joined_or_changed =
                poll_fn(|cx| match self.tasks.borrow_mut().poll_join_next(cx) {
                    Poll::Ready(joined) => Poll::Ready(Some(joined)),
                    Poll::Pending => changed.as_mut().poll(cx).map(|()| None),
                });
            match joined_or_changed.await {
                None | Some(Some(Ok(()))) => {}
                Some(None) => return,
                Some(Some(Err(_))) => {
                    let sentence = "a read task panicked; this is a bug";
                    self.shared.fail(Error::new(ErrorKind::Io, sentence));
                }
            }
        }
    }

    /// Starts the read tasks that are missing.
    fn start_tasks(self: &Rc<Self>) {
        while self.running.get() < self.wanted_tasks() && !self.finished.get() {
            self.running.set(self.running.get() + 1);
            self.waits.iter().for_each(EngineWaits::add_task);
            self.tasks.borrow_mut().spawn_local(Rc::clone(self).read_task());
        }
    }

    /// How many read tasks the engine has at present: as many as files need, or its share of the
    /// cold reads that help, or of the ranges that the objects' server can have on the way. While
    /// most of the answers wait for memory, fewer suffice.
    fn wanted_tasks(&self) -> usize {
        let Job { depth, connections, engines, .. } = self.shared.job;
        let counters = &self.shared.stats.counters;
        let connections = counters.connections().unwrap_or(connections);
        let depth = depth.max(counters.cold_reads().at_a_time().div_ceil(engines.max(1)));
        let share = connections.div_ceil(engines.max(1));
        let moving = self.running.get() - self.waiting.get();
        depth.max(share.min((2 * moving).max(TASKS_MIN))).max(1)
    }

    /// Runs one read task until no read is left, the load is stopped, or fewer tasks are wanted.
    async fn read_task(self: Rc<Self>) {
        let _task = self.waits.as_ref().map(EngineWaits::task);
        let _running = RunningTask(&self.running);
        if let Err(error) = self.run().await {
            self.finished.set(true);
            self.shared.fail(error);
        }
    }

    async fn run(self: &Rc<Self>) -> Result<()> {
        let mut in_order = JoinSet::new();
        while self.running.get() <= self.wanted_tasks() {
            self.start_tasks();
            while in_order.try_join_next().is_some() {} // frees those that have ended
            if self.shared.is_cancelled() {
                self.finished.set(true);
                break;
            }
            // Others run between two reads, also where a read is a copy that never waits.
            tokio::task::yield_now().await;
            let next = || self.work.next(self.number);
            match self.step(&next).await? {
                NextStep::Read(read) => self.read(read, None, &mut in_order).await?,
                NextStep::Request(request) => self.request(request, &mut in_order).await?,
                NextStep::Deliver(completion) => self.shared.queue.push(completion),
                NextStep::Wait { .. } => {}
                NextStep::Finished => {
                    self.finished.set(true);
                    break;
                }
            }
        }
        while in_order.join_next().await.is_some() {}
        Ok(())
    }

    /// Takes the next step, after waiting for memory where that is needed.
    async fn step(&self, next: &dyn Fn() -> NextStep) -> Result<NextStep> {
        match self.next(next) {
            NextStep::Wait { ring, .. } => {
                self.wait_for_memory(ring, next, Ring::freed_for_one).await
            }
            next => Ok(next),
        }
    }

    /// Takes the next step. A read counts as in flight from before it is taken until its completion
    /// was delivered, so no read task sees "nothing in flight" in between.
    fn next(&self, next: &dyn Fn() -> NextStep) -> NextStep {
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let next = next();
        if !matches!(next, NextStep::Read(_)) {
            self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        next
    }

    /// Requests a range, binds memory to it when it is answered, and reads it.
    async fn request(
        self: &Rc<Self>,
        request: ChunkRequest,
        in_order: &mut JoinSet<()>,
    ) -> Result<()> {
        let reader = self.reader(request.source)?;
        let Chunk { offset_bytes, want_bytes } = request.chunk;
        let mut answer = match reader.request(offset_bytes, want_bytes) {
            Some(requesting) => Some(requesting.await?),
            None => None,
        };
        let bind = || self.work.bind(self.number, request);
        let bound = match self.next(&bind) {
            NextStep::Wait { ring, .. } => {
                answer.iter_mut().for_each(|answer| answer.wait());
                self.waiting.set(self.waiting.get() + 1);
                let bound = self.wait_for_memory(ring, &bind, Ring::freed).await;
                self.waiting.set(self.waiting.get() - 1);
                bound?
            }
            bound => bound,
        };
        match bound {
            NextStep::Read(read) => self.read(read, answer, in_order).await,
            _ => Ok(()), // the load was stopped
        }
    }

    /// Performs a read. Where its bytes may have to wait for those before them, a task of `in_order`
    /// does the rest, so that other files are read and hashed meanwhile.
    async fn read(
        self: &Rc<Self>,
        read: ChunkRead,
        answer: Option<Box<dyn RangeAnswer>>,
        in_order: &mut JoinSet<()>,
    ) -> Result<()> {
        let ChunkRead { source: index, chunk, window, lead_bytes, part_list, ticket } = read;
        let reader = self.reader(index)?;
        let source = &*self.shared.job.sources[index];
        let window = fill(&self.shared, source, &*reader, chunk, window, answer).await?;
        let read = ChunkRead { source: index, chunk, window, lead_bytes, part_list, ticket };
        if !self.checks_in_order(index) {
            return self.complete(read, &*reader).await;
        }
        let engine = Rc::clone(self);
        in_order.spawn_local(async move {
            let _guard = PanicGuard(&engine.shared);
            if let Err(error) = engine.complete(read, &*reader).await {
                engine.shared.fail(error);
            }
        });
        Ok(())
    }

    /// Checks the bytes of a read whose window is filled, and delivers what it completes.
    async fn complete(&self, read: ChunkRead, reader: &dyn Reader) -> Result<()> {
        let ChunkRead { source: index, chunk, mut window, lead_bytes, part_list, ticket } = read;
        let offset = chunk.offset_bytes + lead_bytes as u64;
        let bytes = &window.filled_bytes()[lead_bytes..chunk.want_bytes];
        self.check((index, part_list), offset, bytes).await?;
        reader.filled(&mut window, chunk.offset_bytes);
        if !self.shared.job.sources[index].is_remote() {
            self.shared.stats.backend(self.access.backend.kind());
        }
        if let Some(completion) = self.work.complete(ticket, window)? {
            self.shared.queue.push(completion);
        }
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    /// The verifier of a source whose readers do not verify what they receive.
    fn verifier(&self, source: usize) -> Option<&ChecksumVerifier> {
        let verifier = self.shared.checks[source].as_deref();
        verifier.filter(|_| !self.shared.job.sources[source].verifies_reads())
    }

    /// Whether the bytes of a source are checked in their order.
    fn checks_in_order(&self, source: usize) -> bool {
        self.verifier(source).is_some() || self.shared.job.checks.in_order(source)
    }

    /// Gives the `bytes` of a source from `offset`, which no other read has, to the checks of the load.
    async fn check(&self, of: (usize, usize), offset: u64, bytes: &[u8]) -> Result<()> {
        let Shared { job, stop, .. } = &*self.shared;
        if let Some(verifier) = self.verifier(of.0) {
            verifier.add_read(offset, bytes, stop).await?;
        }
        job.checks.add(of, offset, bytes, stop).await
    }

    fn reader(&self, index: usize) -> Result<Rc<dyn Reader>> {
        let mut readers = self.readers.borrow_mut();
        if let Some((_, reader)) = readers.iter().find(|(of, _)| *of == index) {
            return Ok(Rc::clone(reader));
        }
        let source = Arc::clone(&self.shared.job.sources[index]);
        let access = self.access.with_verifier(self.shared.checks[index].clone());
        let reader: Rc<dyn Reader> = source.reader(&access)?.into();
        if let Some(downgrade) = reader.initial_downgrade() {
            self.shared.stats.downgrade(downgrade);
        }
        if readers.len() == READERS_MAX {
            readers.pop_front();
        }
        readers.push_back((index, Rc::clone(&reader)));
        Ok(reader)
    }

    /// Waits, by `notified`, until a step other than waiting for memory of `ring` is possible. Fails if none
    /// ever will be.
    async fn wait_for_memory(
        &self,
        mut ring: Arc<Ring>,
        step: &dyn Fn() -> NextStep,
        notified: fn(&Ring) -> Notified<'_>,
    ) -> Result<NextStep> {
        let _wait = self.waits.as_ref().map(EngineWaits::wait);
        let (shortest, longest) = HOLD_CHECK_INTERVALS;
        let interval = match self.shared.job.caller_may_retain_all {
            true => RETAIN_CHECK_INTERVAL,
            false => (self.shared.job.hold_timeout / 8).clamp(shortest, longest),
        };
        loop {
            let awaited = Arc::clone(&ring);
            let mut freed = std::pin::pin!(notified(&awaited));
            freed.as_mut().enable();
            // Slots that are freed from here on wake `freed`; `next` sees those freed before.
            let next = self.next(step);
            let NextStep::Wait { ring: waits_for, need } = next else {
                ring.wake_another();
                return Ok(next);
            };
            if self.shared.is_cancelled() {
                return Ok(NextStep::Finished);
            }
            if !Arc::ptr_eq(&waits_for, &ring) {
                ring = waits_for; // another read task took the slot that this one waited for
            } else if tokio::time::timeout(interval, freed).await.is_err()
                && let Some(usage) = self.held_usage(&ring)
            {
                // Memory may have been freed after the wait ended.
                let waits_for = match self.next(step) {
                    NextStep::Wait { ring, .. } => ring,
                    next => return Ok(next),
                };
                if Arc::ptr_eq(&waits_for, &ring) && ring.usage().last_freed == usage.last_freed {
                    self.all_is_held(&ring, need, &usage)?;
                }
            }
        }
    }

    /// Detects that the caller holds memory and waits for more: nothing is on its way, and no memory
    /// was returned for the hold timeout. Returns the usage of the ring if so.
    fn held_usage(&self, ring: &Ring) -> Option<RingUsage> {
        let starving = self.shared.queue.starving_for()?;
        let Job { caller_may_retain_all, hold_timeout, .. } = self.shared.job;
        let timeout = if caller_may_retain_all { Duration::ZERO } else { hold_timeout };
        let usage = ring.usage();
        let in_flight = self.shared.in_flight.load(Ordering::Acquire) + self.work.in_transfer();
        // The cache writer returns its memory when that is written to disk.
        let held_by_cache = self.shared.stats.counters.holds_any();
        let is_held =
            in_flight == 0 && !held_by_cache && starving.min(usage.last_freed.elapsed()) >= timeout;
        is_held.then_some(usage)
    }

    /// Goes on in a new ring if the caller may retain all memory.
    ///
    /// # Errors
    /// When the caller holds all memory and may not retain it.
    fn all_is_held(&self, ring: &Arc<Ring>, need: usize, usage: &RingUsage) -> Result<()> {
        if self.shared.job.caller_may_retain_all && self.work.replace_ring(ring)? {
            return Ok(());
        }
        let sentence = format!(
            "the memory limit is reached: the tensors still held take {} of the ring's {} \
             and the next ones need {}, and nothing was dropped for {:.1} s; drop tensors \
             as they come, copy what must stay, or raise the memory limit",
            Size(usage.bytes as u64),
            Size(ring.capacity() as u64),
            Size(need as u64),
            usage.last_freed.elapsed().as_secs_f64(),
        );
        Err(Error::new(ErrorKind::MemoryLimit, sentence))
    }
}
