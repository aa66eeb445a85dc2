//! Writing a timeline down while the load runs.
//!
//! One lock, held for a few stores, three or four times a slot: slots are megabytes, so that nobody
//! waits for it.

use super::{Period, SlotSpan, Stage, Step, Timeline, TraceEvent, Wait};
use crate::options::Device;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many retries are written down; a server in trouble may cause any number.
const RETRIES_MAX: usize = 10_000;

/// Takes down what happens in one load.
#[derive(Debug)]
pub(crate) struct Recorder {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lives: Vec<Life>,
    waits: Vec<Wait>,
    steps: Vec<Step>,
    moments: Vec<TraceEvent>,
    retries: usize,
}

#[derive(Debug)]
struct Life {
    taken: Taken,
    ways: Vec<&'static str>,
    /// When each stage began, by its number; those that it did not have are left out.
    began: [Option<Duration>; Stage::ALL.len()],
    freed: Option<Duration>,
}

/// What a slot was taken for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub engine: usize,
    pub shard: usize,
    pub offset_bytes: u64,
    pub bytes: u64,
    /// What happens to it first.
    pub stage: Stage,
}

/// A slot whose life is being recorded; dropped just before its memory is free for others.
#[derive(Debug)]
pub(crate) struct TraceSpan {
    recorder: Arc<Recorder>,
    index: usize,
}

impl Recorder {
    /// For a load that began then.
    pub fn new(began: Instant) -> Arc<Self> {
        Arc::new(Self { began, state: Mutex::default() })
    }

    /// A slot was taken.
    pub fn slot(self: &Arc<Self>, taken: Taken) -> TraceSpan {
        let mut state = self.lock();
        let mut began = [None; Stage::ALL.len()];
        began[taken.stage as usize] = Some(self.now());
        state.lives.push(Life { taken, ways: Vec::new(), began, freed: None });
        TraceSpan { recorder: Arc::clone(self), index: state.lives.len() - 1 }
    }

    /// An engine has been waiting since then.
    pub fn wait(&self, engine: usize, since: Instant) {
        let period = self.until_now(since);
        self.lock().waits.push(Wait { engine, period });
    }

    /// Something has been going on since then.
    pub fn step(&self, what: &'static str, device: Option<Device>, since: Instant) {
        let period = self.until_now(since);
        self.lock().steps.push(Step { what, device, period });
    }

    /// Something happens.
    pub fn moment(&self, what: &'static str, why: String) {
        let at = self.now();
        self.lock().moments.push(TraceEvent { what, why, at });
    }

    /// Something is asked for again.
    pub fn retry(&self, why: &'static str) {
        let at = self.now();
        let mut state = self.lock();
        if state.retries < RETRIES_MAX {
            state.retries += 1;
            state.moments.push(TraceEvent { what: "retry", why: why.to_owned(), at });
        }
    }

    /// What was written down so far.
    pub fn timeline(&self) -> Timeline {
        let state = self.lock();
        let end = self.now();
        Timeline {
            slots: state.lives.iter().map(|life| life.told(end)).collect(),
            waits: state.waits.clone(),
            steps: state.steps.clone(),
            moments: state.moments.clone(),
            end,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn until_now(&self, since: Instant) -> Period {
        Period { start: since.saturating_duration_since(self.began), end: self.now() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Consistent between statements, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// Of one that is not over, the last stage ends at `end`.
    fn told(&self, end: Duration) -> SlotSpan {
        let end = self.freed.unwrap_or(end);
        let begun = || Stage::ALL.into_iter().zip(self.began);
        let begun = || begun().filter_map(|(stage, began)| Some((stage, began?)));
        let ends = begun().skip(1).map(|(_, began)| began).chain([end]);
        let stage = |((stage, start), end)| (stage, Period { start, end });
        let Taken { engine, shard, offset_bytes, bytes, .. } = self.taken;
        let stages = begun().zip(ends).map(stage).collect();
        SlotSpan { engine, shard, offset_bytes, bytes, ways: self.ways.clone(), stages }
    }
}

impl TraceSpan {
    /// The slot enters this stage, which comes after those it had.
    pub fn stage(&self, stage: Stage) {
        self.change(|life, now| life.began[stage as usize] = Some(now));
    }

    /// Bytes came this way.
    pub fn came_by(&self, way: &'static str) {
        self.change(|life, _| {
            if !life.ways.contains(&way) {
                life.ways.push(way);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Life, Duration)) {
        let mut state = self.recorder.lock();
        if let Some(life) = state.lives.get_mut(self.index) {
            change(life, self.recorder.now());
        }
    }
}

impl Drop for TraceSpan {
    fn drop(&mut self) {
        self.change(|life, now| life.freed = Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(engine: usize, stage: Stage) -> Taken {
        Taken { engine, shard: 1, offset_bytes: 4096, bytes: 8192, stage }
    }

    #[test]
    fn stages_follow_upon_each_other_without_gaps() {
        let recorder = Recorder::new(Instant::now());
        let mark = recorder.slot(taken(3, Stage::Reading));
        mark.came_by("direct");
        mark.came_by("buffered");
        mark.came_by("direct");
        mark.stage(Stage::Copying);
        mark.stage(Stage::Held);
        drop(mark);
        let timeline = recorder.timeline();
        let [slot] = &timeline.slots[..] else { panic!("{timeline:?}") };
        assert_eq!((slot.engine, slot.shard, slot.offset_bytes, slot.bytes), (3, 1, 4096, 8192));
        assert_eq!(slot.ways, ["direct", "buffered"]);
        let stages: Vec<_> = slot.stages.iter().map(|(stage, _)| *stage).collect();
        assert_eq!(stages, [Stage::Reading, Stage::Copying, Stage::Held]);
        for pair in slot.stages.windows(2) {
            assert_eq!(pair[0].1.end, pair[1].1.start);
        }
        assert!(slot.stages.iter().all(|(_, it)| it.start <= it.end && it.end <= timeline.end));
    }

    #[test]
    fn what_goes_on_ends_where_the_timeline_does() {
        let recorder = Recorder::new(Instant::now());
        let freed = recorder.slot(taken(0, Stage::Casting));
        let held = recorder.slot(taken(0, Stage::Reading));
        held.stage(Stage::Held);
        drop(freed);
        let timeline = recorder.timeline();
        let last = |slot: usize| timeline.slots[slot].stages.last().unwrap().1.end;
        assert!(last(0) < last(1));
        assert_eq!(last(1), timeline.end);
        drop(held);
        assert!(recorder.timeline().slots[1].stages[1].1.end < recorder.timeline().end);
    }

    #[test]
    fn retries_do_not_fill_the_memory() {
        let recorder = Recorder::new(Instant::now());
        (0..RETRIES_MAX + 5).for_each(|_| recorder.retry("reset"));
        recorder.moment("last tensor", String::new());
        let moments = recorder.timeline().moments;
        assert_eq!(moments.len(), RETRIES_MAX + 1);
        assert_eq!(moments[RETRIES_MAX].what, "last tensor");
    }
}
