//! A lane: takes a read, drives it to its end, takes the next.

use super::fill::fill;
use super::record::Waits;
use super::{Job, Next, Shared, Task, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::Ring;
use crate::source::{Access, Backend, Reader};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An engine keeps the readers of so many sources open; a checkpoint is read shard by shard, so
/// few are in use at once.
const READERS_MAX: usize = 4;

/// How often a lane that waits for memory looks whether the caller holds all of it: between these.
const HOLD_LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The same where the caller may: it is waiting for nothing then.
const RENEWAL_LOOK: Duration = Duration::from_millis(1);

/// What the lanes of one engine share.
pub(super) struct Engine {
    shared: Arc<Shared>,
    work: Arc<dyn Work>,
    access: Access,
    readers: RefCell<VecDeque<(usize, Rc<dyn Reader>)>>,
    number: usize,
    /// Where they are taken down.
    waits: Option<Waits>,
}

impl Engine {
    /// The engine of this number.
    pub fn new(
        shared: Arc<Shared>,
        work: Arc<dyn Work>,
        backend: Backend,
        number: usize,
    ) -> Rc<Self> {
        let (path, stop) = (shared.job.read_path, Arc::clone(&shared.stop));
        let access = Access::new(backend, path, stop, Arc::clone(&shared.stats.counters));
        let recorder = shared.job.recorder.clone();
        let waits = recorder.map(|recorder| Waits::new(recorder, number, shared.job.depth.max(1)));
        Rc::new(Self { shared, work, access, readers: RefCell::default(), number, waits })
    }

    /// Works until nothing is left or the load is stopped.
    pub async fn lane(self: Rc<Self>) {
        let _lane = self.waits.as_ref().map(Waits::lane);
        if let Err(error) = self.run().await {
            self.shared.fail(error);
        }
    }

    async fn run(&self) -> Result<()> {
        while !self.shared.is_cancelled() {
            let next = match self.next() {
                Next::Wait { ring, .. } => self.wait_for_memory(ring).await?,
                next => next,
            };
            match next {
                Next::Read(task) => self.read(task).await?,
                Next::Deliver(done) => self.shared.queue.push(done),
                Next::Wait { .. } => {}
                Next::Finished => break,
            }
        }
        Ok(())
    }

    /// The next thing to do. A read counts as in flight from before it is taken until what it
    /// completed was handed out, so that no lane sees "nothing in flight" in between.
    fn next(&self) -> Next {
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let next = self.work.next(self.number);
        if !matches!(next, Next::Read(_)) {
            self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        next
    }

    async fn read(&self, task: Task) -> Result<()> {
        let Task { source: index, chunk, window, ticket } = task;
        let reader = self.reader(index)?;
        let source = &*self.shared.job.sources[index];
        let mut window = fill(&self.shared, source, &*reader, chunk, window).await?;
        reader.filled(&mut window, chunk.offset_bytes);
        if !source.is_remote() {
            self.shared.stats.rung(self.access.backend.rung());
        }
        if let Some(done) = self.work.complete(ticket, window)? {
            self.shared.queue.push(done);
        }
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    fn reader(&self, index: usize) -> Result<Rc<dyn Reader>> {
        let mut readers = self.readers.borrow_mut();
        if let Some((_, reader)) = readers.iter().find(|(of, _)| *of == index) {
            return Ok(Rc::clone(reader));
        }
        let source = Arc::clone(&self.shared.job.sources[index]);
        let access = self.access.checked_by(self.shared.checks[index].clone());
        let reader: Rc<dyn Reader> = source.reader(&access)?.into();
        if let Some(downgrade) = reader.refused() {
            self.shared.stats.downgrade(downgrade);
        }
        if readers.len() == READERS_MAX {
            readers.pop_front();
        }
        readers.push_back((index, Rc::clone(&reader)));
        Ok(reader)
    }

    /// Waits until there is something else to do than to wait for memory of `ring`, or finds that
    /// this cannot happen.
    async fn wait_for_memory(&self, mut ring: Arc<Ring>) -> Result<Next> {
        let _wait = self.waits.as_ref().map(Waits::wait);
        let look = match self.shared.job.caller_may_retain_all {
            true => RENEWAL_LOOK,
            false => (self.shared.job.hold_timeout / 8).clamp(HOLD_LOOKS.0, HOLD_LOOKS.1),
        };
        loop {
            let awaited = Arc::clone(&ring);
            let mut freed = std::pin::pin!(awaited.freed());
            freed.as_mut().enable();
            // From here on nothing freed is missed; what was freed before, this look sees.
            let next = self.next();
            let Next::Wait { ring: waits_for, need } = next else {
                return Ok(next);
            };
            if self.shared.is_cancelled() {
                return Ok(Next::Finished);
            }
            if !Arc::ptr_eq(&waits_for, &ring) {
                ring = waits_for; // another lane took what this one waited for
            } else if tokio::time::timeout(look, freed).await.is_err() {
                self.check_held(&ring, need)?;
            }
        }
    }

    /// When the caller waits for more tensors, nothing is on its way, and no memory was given back for
    /// so long that the caller must be holding all of it: goes on in new memory, if it may keep it.
    ///
    /// # Errors
    /// When it may not.
    fn check_held(&self, ring: &Arc<Ring>, need: usize) -> Result<()> {
        let Some(starving) = self.shared.queue.starving_for() else {
            return Ok(());
        };
        let Job { caller_may_retain_all, hold_timeout, .. } = self.shared.job;
        let patience = if caller_may_retain_all { Duration::ZERO } else { hold_timeout };
        let usage = ring.usage();
        let in_flight = self.shared.in_flight.load(Ordering::Acquire) + self.work.in_hand();
        // What a cache's writer holds, its disk will give back.
        let held_by_cache = self.shared.stats.counters.holds_any();
        if in_flight > 0 || held_by_cache || starving.min(usage.since_freed) < patience {
            return Ok(());
        }
        if caller_may_retain_all && self.work.renew(ring)? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::MemoryLimit,
            format!(
                "the memory limit is reached: the tensors still held take {} of the ring's {} bytes \
                 and the next ones need {need}, and nothing was dropped for {:.1} s; drop tensors \
                 as they come, copy what must stay, or raise the memory limit",
                usage.bytes,
                ring.capacity(),
                usage.since_freed.as_secs_f64(),
            ),
        ))
    }
}
