//! What engines tell a load's timeline besides the lives of slots: when they have nothing to do but to
//! wait for memory, and what is read without a slot.
//!
//! An engine waits while each of its lanes that have not ended waits for a slot. As long as one of them still
//! reads, the engine works, if with less in flight.

use super::Shared;
use crate::plan::Extent;
use crate::source::Via;
use crate::timeline::{Recorder, Stage, Taken, TraceSpan};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

/// The lanes of one engine, as far as they wait.
pub(super) struct Waits {
    recorder: Arc<Recorder>,
    engine: usize,
    /// Those that have not ended.
    lanes: Cell<usize>,
    /// Those of them that wait.
    waiting: Cell<usize>,
    /// Since when all of them do.
    since: Cell<Option<Instant>>,
}

/// A lane that is there or that waits, until this is dropped.
pub(super) struct Counted<'a> {
    waits: &'a Waits,
    count: &'a Cell<usize>,
}

impl Waits {
    /// For `lanes` lanes that are about to begin.
    pub fn new(recorder: Arc<Recorder>, engine: usize, lanes: usize) -> Self {
        let (lanes, waiting) = (Cell::new(lanes), Cell::new(0));
        Self { recorder, engine, lanes, waiting, since: Cell::new(None) }
    }

    /// One of the lanes, until this is dropped.
    pub fn lane(&self) -> Counted<'_> {
        Counted { waits: self, count: &self.lanes }
    }

    /// A lane that waits for memory, until this is dropped.
    pub fn wait(&self) -> Counted<'_> {
        self.waiting.set(self.waiting.get() + 1);
        self.look();
        Counted { waits: self, count: &self.waiting }
    }

    fn look(&self) {
        let all_wait = self.waiting.get() > 0 && self.waiting.get() == self.lanes.get();
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
        self.waits.look();
    }
}

impl Shared {
    /// The mark of an extent that is read without a slot, where lives are taken down.
    pub(super) fn mark(&self, engine: usize, extent: &Extent, via: Via) -> Option<TraceSpan> {
        let recorder = self.job.recorder.as_ref()?;
        let mark = recorder.slot(Taken {
            engine,
            shard: extent.shard(),
            offset_bytes: extent.offset_bytes(),
            bytes: extent.len_bytes(),
            stage: Stage::Reading,
        });
        mark.came_by(via.as_str());
        Some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_waits_while_no_lane_of_it_reads() {
        let recorder = Recorder::new(Instant::now());
        let waits = Waits::new(Arc::clone(&recorder), 7, 2);
        let [first, second] = [waits.lane(), waits.lane()];
        let count = || recorder.timeline().waits.len();
        drop(waits.wait());
        assert_eq!(count(), 0, "the other lane reads");
        let waiting = [waits.wait(), waits.wait()];
        drop(waiting);
        assert_eq!(count(), 1);
        drop(second);
        drop(waits.wait());
        assert_eq!(count(), 2, "only this lane is left");
        drop(first);
        let engines: Vec<_> = recorder.timeline().waits.iter().map(|wait| wait.engine).collect();
        assert_eq!(engines, [7, 7]);
    }
}
