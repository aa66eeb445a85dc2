//! The timeline of a load: a lane for each engine and slot, coloured by activity.
//!
//! A timeline is a Chrome trace: process 1 has the engines and their waits, process 2 the slots and
//! their stages, process 3 the events of the load. Other events are ignored. Spans that would be within
//! a pixel are drawn together, so that a trace of any length gives a small picture.

use crate::report::plots::{Axis, INK, css, picture, rgb};
use crate::report::text::{digits, percent};
use anyhow::Result;
use plotters::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

const WIDTH: u32 = 1000;
/// The number of spans that are drawn exactly.
const MOST_SPANS: usize = 6000;
/// The width of the lanes alone.
const LANE_PIXELS: usize = 902;
/// Lanes become thinner where there are many, so that the picture is at most this high.
const LANES_PIXELS: f64 = 800.0;
const PITCH: f64 = 18.0;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    ph: String,
    pid: u64,
    tid: u64,
    ts: Option<f64>,
    dur: f64,
    cat: String,
    name: String,
}

/// The activities of a lane, with their colours.
const KINDS: [(&str, RGBColor); 5] = [
    ("slot: reading", rgb(0x0b5fd6)),
    ("slot: copying", rgb(0xe59a1c)),
    ("slot: held, waiting to be taken", rgb(0xb65c9c)),
    ("engine: waiting", rgb(0xa0a7b0)),
    ("load: opening, faulting memory in", rgb(0x829ec2)),
];

/// A span of a lane in milliseconds, and the index of its kind.
type Span = (f64, f64, usize);

#[derive(Debug, Default, PartialEq)]
pub struct Timeline {
    pub milliseconds: f64,
    /// The spans of the lanes by process and thread; the process of the load is 0, to be the first.
    lanes: BTreeMap<(u64, u64), Vec<Span>>,
    /// The events without a duration.
    pub instants: Vec<(f64, String)>,
}

impl Event {
    /// Process and thread, the load before the engines and slots.
    fn lane(&self) -> (u64, u64) {
        (self.pid % 3, self.tid)
    }

    /// The index of the kind.
    fn kind(&self) -> Option<usize> {
        match (self.pid, self.cat.as_str()) {
            (2, "reading") => Some(0),
            (2, "copying") => Some(1),
            (2, "held") => Some(2),
            (1, "wait") => Some(3),
            (3, _) => Some(4),
            _ => None,
        }
    }

    /// The start and the end in milliseconds; `None` for metadata.
    fn times(&self) -> Option<(f64, f64)> {
        let start = self.ts.filter(|it| self.ph != "M" && it.is_finite())?;
        Some((start / 1e3, (start + self.dur.max(0.0)) / 1e3))
    }
}

impl Timeline {
    /// `None` for a trace without lanes.
    pub fn of(trace: &Value) -> Option<Self> {
        let events = trace.get("traceEvents").unwrap_or(trace).as_array()?;
        let events = events.iter().filter_map(|event| Event::deserialize(event).ok());
        let events: Vec<Event> = events.collect();
        let times = || events.iter().filter_map(Event::times);
        let start = times().map(|(start, _)| start).reduce(f64::min)?;
        let end = times().map(|(_, end)| end).reduce(f64::max)?;
        let mut timeline = Self { milliseconds: end - start, ..Self::default() };
        for event in &events {
            let Some((kind, (from, to))) = event.kind().zip(event.times()) else { continue };
            if event.ph == "X" {
                let span = (from - start, to - start, kind);
                timeline.lanes.entry(event.lane()).or_default().push(span);
            } else {
                timeline.instants.push((from - start, event.name.clone()));
            }
        }
        let lanes = timeline.lanes.values_mut();
        lanes.for_each(|spans| spans.sort_by(|span, other| span.0.total_cmp(&other.0)));
        timeline.instants.sort_by(|(at, _), (other, _)| at.total_cmp(other));
        (!timeline.lanes.is_empty()).then_some(timeline)
    }

    fn slots(&self) -> impl Iterator<Item = &Vec<Span>> {
        self.lanes.iter().filter(|((process, _), _)| *process == 2).map(|(_, spans)| spans)
    }

    /// The share of a kind in the time of all slots.
    pub fn slots_share(&self, kind: usize) -> f64 {
        let spans = self.slots().flatten().filter(|span| span.2 == kind);
        let all = (self.milliseconds * self.slots().count() as f64).max(f64::MIN_POSITIVE);
        (spans.map(|(from, to, _)| to - from).sum::<f64>() / all).min(1.0)
    }

    /// The figures of the picture.
    pub fn sentence(&self) -> String {
        let shares = [0, 1, 2].map(|kind| self.slots_share(kind));
        let idle = percent((1.0 - shares.iter().sum::<f64>()).max(0.0));
        let [reading, copying, held] = shares.map(percent);
        let (slots, length) = (self.slots().count(), digits(self.milliseconds));
        let mut sentence = format!(
            "{length} ms; of the time of {slots} slots {reading} was reading, {copying} copying, \
             {held} held, {idle} idle. Thin lines are events"
        );
        for (at, name) in self.instants.iter().take(24) {
            sentence += &format!("; {name} at {} ms", digits(*at));
        }
        sentence + "."
    }

    /// The colours and names of the activities.
    pub fn legend() -> Vec<(String, &'static str)> {
        KINDS.iter().map(|(name, colour)| (css(colour.mix(1.0)), *name)).collect()
    }

    /// The picture.
    pub fn draw(&self, label: &str) -> Result<String> {
        let lanes = self.lanes.iter().rev().enumerate();
        let name = |(process, thread): &(u64, u64)| match process {
            0 => "load".to_owned(),
            1 => format!("engine {thread}"),
            _ => format!("slot {thread}"),
        };
        let names: Vec<String> = self.lanes.keys().rev().map(name).collect();
        let count = names.len() as f64;
        let pitch = PITCH.min(LANES_PIXELS / count);
        let ticks = (0..names.len()).step_by((PITCH / pitch).ceil() as usize);
        let ticks = ticks.map(|index| index as f64 + 0.5).collect();
        let y = Axis { ticks, ..Axis::to(count) };
        let axes = [(Axis::to(self.milliseconds), "ms"), (y, "")];
        picture(label, (WIDTH, (pitch * count) as u32 + 62), axes, &names, |chart| {
            for (index, (_, spans)) in lanes {
                let (bottom, top) = (index as f64 + 0.1, index as f64 + 0.9);
                chart.draw_series(self.visible(spans).into_iter().map(|(from, to, kind)| {
                    Rectangle::new([(from, bottom), (to, top)], KINDS[kind].1.filled())
                }))?;
            }
            let lines = self.instants.iter().map(|(at, _)| [(*at, 0.0), (*at, count)]);
            chart.draw_series(lines.map(|line| PathElement::new(line, INK)))?;
            Ok(())
        })
    }

    /// The spans of a lane as they are drawn: in bins, each of its most frequent kind, and neighbours
    /// of one kind as one span. A bin is a pixel, or more in a long trace.
    fn visible(&self, spans: &[Span]) -> Vec<Span> {
        let all: usize = self.lanes.values().map(Vec::len).sum();
        let few = LANE_PIXELS.min(MOST_SPANS / self.lanes.len()).max(1);
        let mut bins = vec![[0.0; KINDS.len()]; if all > MOST_SPANS { few } else { LANE_PIXELS }];
        let bin = self.milliseconds.max(1e-9) / bins.len() as f64;
        for (from, to, kind) in spans {
            // Spans without any length are visible, too.
            let (from, to) = (from / bin, (to / bin).max(from / bin + 1e-3));
            let within = bins.iter_mut().enumerate().take(to.ceil() as usize).skip(from as usize);
            for (index, bin) in within {
                bin[*kind] += to.min(index as f64 + 1.0) - from.max(index as f64);
            }
        }
        let most = |bin: &[f64; KINDS.len()]| {
            let kinds = bin.iter().enumerate().filter(|(_, share)| **share > 0.0);
            kinds.max_by(|one, other| one.1.total_cmp(other.1)).map(|(kind, _)| kind)
        };
        let kinds: Vec<Option<usize>> = bins.iter().map(most).collect();
        let (mut visible, mut end) = (Vec::new(), 0.0);
        for run in kinds.chunk_by(|kind, next| kind == next) {
            let start = end;
            end += run.len() as f64 * bin;
            visible.extend(run[0].map(|kind| (start, end, kind)));
        }
        visible
    }
}
