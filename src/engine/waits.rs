//! Records for the timeline when an engine waits for memory.
//!
//! An engine waits while each of its read tasks that have not ended waits for a slot. As long as one
//! of them still reads, the engine works, only with fewer reads in flight.

use crate::timeline::Recorder;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

/// Counts which read tasks of one engine wait.
pub(super) struct EngineWaits {
    recorder: Arc<Recorder>,
    engine: usize,
    /// Read tasks that have not ended.
    tasks: Cell<usize>,
    /// The read tasks that wait.
    waiting: Cell<usize>,
    /// Since when all of them wait.
    since: Cell<Option<Instant>>,
}

/// Counts a read task as running or as waiting until it is dropped.
pub(super) struct Counted<'a> {
    waits: &'a EngineWaits,
    count: &'a Cell<usize>,
}

impl EngineWaits {
    /// Creates the counts of an engine that is about to start `tasks` read tasks.
    pub fn new(recorder: Arc<Recorder>, engine: usize, tasks: usize) -> Self {
        let (tasks, waiting) = (Cell::new(tasks), Cell::new(0));
        Self { recorder, engine, tasks, waiting, since: Cell::new(None) }
    }

    /// Counts a read task that is started in addition to those of [`new`](Self::new).
    pub fn add_task(&self) {
        self.tasks.set(self.tasks.get() + 1);
        self.update();
    }

    /// Counts a read task as running. Dropping the result counts it as ended.
    pub fn task(&self) -> Counted<'_> {
        Counted { waits: self, count: &self.tasks }
    }

    /// Counts a read task as waiting for memory until the result is dropped.
    pub fn wait(&self) -> Counted<'_> {
        self.waiting.set(self.waiting.get() + 1);
        self.update();
        Counted { waits: self, count: &self.waiting }
    }

    fn update(&self) {
        let all_wait = self.waiting.get() > 0 && self.waiting.get() == self.tasks.get();
        match self.since.get() {
            None if all_wait => self.since.set(Some(Instant::now())),
            Some(since) if !all_wait => {
                self.recorder.wait(self.engine, since);
                self.since.set(None);
            }
            _ => {}
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
        self.waits.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_waits_while_none_of_its_read_tasks_reads() {
        let recorder = Recorder::new(Instant::now());
        let waits = EngineWaits::new(Arc::clone(&recorder), 7, 2);
        let [first, second] = [waits.task(), waits.task()];
        let count = || recorder.timeline().waits.len();
        drop(waits.wait());
        assert_eq!(count(), 0, "the other read task reads");
        let waiting = [waits.wait(), waits.wait()];
        drop(waiting);
        assert_eq!(count(), 1);
        drop(second);
        drop(waits.wait());
        assert_eq!(count(), 2, "only this read task is left");
        drop(first);
        let engines: Vec<_> = recorder.timeline().waits.iter().map(|wait| wait.engine).collect();
        assert_eq!(engines, [7, 7]);
    }
}
