//! Records a timeline while the load runs.
//!
//! There is one lock, taken three or four times per slot for a few stores each. As slots are
//! megabytes large, it is not contended.

use super::types::{Period, SlotSpan, Stage, Step, Timeline, TraceEvent, Wait};
use crate::options::Device;
use crate::sync::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum number of retries that are recorded, as a failing server may cause any number.
const RETRIES_MAX: usize = 10_000;

/// Records the timeline of one load.
#[derive(Debug)]
pub(crate) struct Recorder {
    began: Instant,
    state: Mutex<RecorderState>,
}

#[derive(Debug, Default)]
struct RecorderState {
    slots: Vec<SlotRecord>,
    waits: Vec<Wait>,
    steps: Vec<Step>,
    events: Vec<TraceEvent>,
    retries: usize,
}

#[derive(Debug)]
struct SlotRecord {
    slot: SlotUse,
    paths: Vec<&'static str>,
    /// When each stage began, by its number. `None` for stages that the slot did not pass through.
    began: [Option<Duration>; Stage::ALL.len()],
    freed: Option<Duration>,
}

/// The purpose for which a slot was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotUse {
    pub engine: usize,
    pub shard: usize,
    pub offset_bytes: u64,
    pub bytes: u64,
    /// The slot's first stage.
    pub stage: Stage,
}

/// Records the use of one slot. Dropped just before the slot's memory is free for others.
#[derive(Debug)]
pub(crate) struct TraceSpan {
    recorder: Arc<Recorder>,
    index: usize,
}

impl Recorder {
    /// A recorder for a load that began at `began`.
    pub fn new(began: Instant) -> Arc<Self> {
        Arc::new(Self { began, state: Mutex::default() })
    }

    /// Records that a slot was taken.
    pub fn slot(self: &Arc<Self>, slot: SlotUse) -> TraceSpan {
        let mut state = self.state.lock();
        let mut began = [None; Stage::ALL.len()];
        began[slot.stage as usize] = Some(self.now());
        state.slots.push(SlotRecord { slot, paths: Vec::new(), began, freed: None });
        TraceSpan { recorder: Arc::clone(self), index: state.slots.len() - 1 }
    }

    /// Records that an engine waited from `since` until now.
    pub fn wait(&self, engine: usize, since: Instant) {
        let period = self.until_now(since);
        self.state.lock().waits.push(Wait { engine, period });
    }

    /// Records a step that took from `since` until now.
    pub fn step(&self, what: &'static str, device: Option<Device>, since: Instant) {
        let period = self.until_now(since);
        self.state.lock().steps.push(Step { what, device, period });
    }

    /// Records an event.
    pub fn event(&self, what: &'static str, why: String) {
        let at = self.now();
        self.state.lock().events.push(TraceEvent { what, why, at });
    }

    /// Records a retry as an event.
    pub fn retry(&self, why: &'static str) {
        let at = self.now();
        let mut state = self.state.lock();
        if state.retries < RETRIES_MAX {
            state.retries += 1;
            state.events.push(TraceEvent { what: "retry", why: why.to_owned(), at });
        }
    }

    /// The timeline so far.
    pub fn timeline(&self) -> Timeline {
        let state = self.state.lock();
        let end = self.now();
        Timeline {
            slots: state.slots.iter().map(|slot| slot.to_span(end)).collect(),
            waits: state.waits.clone(),
            steps: state.steps.clone(),
            events: state.events.clone(),
            end,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn until_now(&self, since: Instant) -> Period {
        Period { start: since.saturating_duration_since(self.began), end: self.now() }
    }
}

impl SlotRecord {
    /// The slot's span. If the slot is still in use, its last stage ends at `end`.
    fn to_span(&self, end: Duration) -> SlotSpan {
        let end = self.freed.unwrap_or(end);
        let begun = || Stage::ALL.into_iter().zip(self.began);
        let begun = || begun().filter_map(|(stage, began)| Some((stage, began?)));
        let ends = begun().skip(1).map(|(_, began)| began).chain([end]);
        let stage = |((stage, start), end)| (stage, Period { start, end });
        let SlotUse { engine, shard, offset_bytes, bytes, .. } = self.slot;
        let stages = begun().zip(ends).map(stage).collect();
        SlotSpan { engine, shard, offset_bytes, bytes, paths: self.paths.clone(), stages }
    }
}

impl TraceSpan {
    /// Records that the slot enters `stage`, which must follow its earlier stages.
    pub fn stage(&self, stage: Stage) {
        self.change(|slot, now| slot.began[stage as usize] = Some(now));
    }

    /// Records by which path bytes of the slot were read.
    pub fn record_path(&self, path: &'static str) {
        self.change(|slot, _| {
            if !slot.paths.contains(&path) {
                slot.paths.push(path);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut SlotRecord, Duration)) {
        let mut state = self.recorder.state.lock();
        if let Some(slot) = state.slots.get_mut(self.index) {
            change(slot, self.recorder.now());
        }
    }
}

impl Drop for TraceSpan {
    fn drop(&mut self) {
        self.change(|slot, now| slot.freed = Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot_use(engine: usize, stage: Stage) -> SlotUse {
        SlotUse { engine, shard: 1, offset_bytes: 4096, bytes: 8192, stage }
    }

    #[test]
    fn stages_follow_upon_each_other_without_gaps() {
        let recorder = Recorder::new(Instant::now());
        let span = recorder.slot(slot_use(3, Stage::Reading));
        span.record_path("direct");
        span.record_path("buffered");
        span.record_path("direct");
        span.stage(Stage::Copying);
        span.stage(Stage::Held);
        drop(span);
        let timeline = recorder.timeline();
        let [slot] = &timeline.slots[..] else { panic!("{timeline:?}") };
        assert_eq!((slot.engine, slot.shard, slot.offset_bytes, slot.bytes), (3, 1, 4096, 8192));
        assert_eq!(slot.paths, ["direct", "buffered"]);
        let stages: Vec<_> = slot.stages.iter().map(|(stage, _)| *stage).collect();
        assert_eq!(stages, [Stage::Reading, Stage::Copying, Stage::Held]);
        for pair in slot.stages.windows(2) {
            assert_eq!(pair[0].1.end, pair[1].1.start);
        }
        assert!(slot.stages.iter().all(|(_, it)| it.start <= it.end && it.end <= timeline.end));
    }

    #[test]
    fn slots_still_in_use_end_where_the_timeline_does() {
        let recorder = Recorder::new(Instant::now());
        let freed = recorder.slot(slot_use(0, Stage::Casting));
        let held = recorder.slot(slot_use(0, Stage::Reading));
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
        recorder.event("last tensor", String::new());
        let events = recorder.timeline().events;
        assert_eq!(events.len(), RETRIES_MAX + 1);
        assert_eq!(events[RETRIES_MAX].what, "last tensor");
    }
}
