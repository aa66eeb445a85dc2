//! Reads the timeline of a load: lanes of spans, in milliseconds from its start.
//!
//! The timeline is a Chrome trace: process 1 has the engines and their waits, process 2 the slots and
//! their stages, process 3 the events of the load. Other events are ignored.

use serde_json::Value;
use std::collections::BTreeMap;

const ENGINES: u64 = 1;
const SLOTS: u64 = 2;
const LOAD: u64 = 3;

/// The activity of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Reading,
    Copying,
    Held,
    Waiting,
    Event,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::Reading, Self::Copying, Self::Held, Self::Waiting, Self::Event];

    /// The class of its colour.
    pub fn class(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Copying => "copying",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Event => "event",
        }
    }

    /// For the legend.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reading => "slot: reading",
            Self::Copying => "slot: copying",
            Self::Held => "slot: held, waiting to be taken",
            Self::Waiting => "engine: waiting",
            Self::Event => "load",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub start: f64,
    pub end: f64,
    pub kind: Kind,
    /// The spans of the load itself.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lane {
    pub name: String,
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline {
    /// The length of the timeline.
    pub milliseconds: f64,
    pub load: Vec<Lane>,
    pub engines: Vec<Lane>,
    pub slots: Vec<Lane>,
    /// The instant events.
    pub instants: Vec<(f64, String)>,
}

impl Timeline {
    /// `None` for a trace without events.
    pub fn of(trace: &Value) -> Option<Self> {
        let events = trace.get("traceEvents").or(Some(trace))?.as_array()?;
        let times = || events.iter().filter_map(times);
        let start = times().map(|(start, _)| start).reduce(f64::min)?;
        let end = times().map(|(_, end)| end).reduce(f64::max)?;
        let mut lanes: BTreeMap<(u64, u64), Lane> = BTreeMap::new();
        let mut instants = Vec::new();
        for event in events {
            let (process, thread) = (number(event, "pid"), number(event, "tid"));
            let Some(kind) = kind(process, event) else { continue };
            let Some((from, to)) = times_of(event, start) else { continue };
            if text(event, "ph") == "X" {
                let lane = lanes.entry((process, thread)).or_default();
                let name = if kind == Kind::Event { text(event, "name") } else { "" };
                lane.spans.push(Span { start: from, end: to, kind, name: name.to_owned() });
            } else {
                instants.push((from, text(event, "name").to_owned()));
            }
        }
        name_lanes(&mut lanes, events);
        instants.sort_by(|(at, _), (other, _)| at.total_cmp(other));
        let milliseconds = (end - start) / 1e3;
        let mut timeline = Self { milliseconds, instants, ..Self::default() };
        for ((process, _), mut lane) in lanes {
            lane.spans.sort_by(|span, other| span.start.total_cmp(&other.start));
            match process {
                ENGINES => timeline.engines.push(lane),
                SLOTS => timeline.slots.push(lane),
                _ => timeline.load.push(lane),
            }
        }
        Some(timeline)
    }

    /// The share of `kind` in the time of all slots.
    pub fn slots_share(&self, kind: Kind) -> f64 {
        let spans = self.slots.iter().flat_map(|lane| &lane.spans);
        let busy: f64 = spans.filter(|it| it.kind == kind).map(|it| it.end - it.start).sum();
        let all = self.milliseconds * self.slots.len() as f64;
        if all > 0.0 { (busy / all).min(1.0) } else { 0.0 }
    }
}

/// The start and end of an event in microseconds; `None` for metadata events.
fn times(event: &Value) -> Option<(f64, f64)> {
    if !matches!(text(event, "ph"), "X" | "i" | "I" | "R") {
        return None;
    }
    let start = event.get("ts")?.as_f64().filter(|it| it.is_finite())?;
    let length = event.get("dur").and_then(Value::as_f64).unwrap_or(0.0);
    Some((start, start + length.max(0.0)))
}

/// The same in milliseconds from the start of the trace.
fn times_of(event: &Value, start: f64) -> Option<(f64, f64)> {
    times(event).map(|(from, to)| ((from - start) / 1e3, (to - start) / 1e3))
}

fn kind(process: u64, event: &Value) -> Option<Kind> {
    match (process, text(event, "cat")) {
        (ENGINES, "wait") => Some(Kind::Waiting),
        (SLOTS, "reading") => Some(Kind::Reading),
        (SLOTS, "copying") => Some(Kind::Copying),
        (SLOTS, "held") => Some(Kind::Held),
        (LOAD, _) => Some(Kind::Event),
        _ => None,
    }
}

fn name_lanes(lanes: &mut BTreeMap<(u64, u64), Lane>, events: &[Value]) {
    for event in events {
        if text(event, "ph") == "M" && text(event, "name") == "thread_name" {
            let name = event.get("args").map_or("", |args| text(args, "name"));
            if let Some(lane) = lanes.get_mut(&(number(event, "pid"), number(event, "tid"))) {
                lane.name = name.to_owned();
            }
        }
    }
    for ((process, thread), lane) in lanes {
        if lane.name.is_empty() {
            lane.name = match *process {
                ENGINES => format!("engine {thread}"),
                SLOTS => format!("slot {thread}"),
                _ => "load".to_owned(),
            };
        }
    }
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(event: &Value, key: &str) -> u64 {
    event.get(key).and_then(Value::as_u64).unwrap_or_default()
}
