//! `--trace`: a load's timeline in the Chrome Trace Event Format, which chrome://tracing and
//! ui.perfetto.dev open.
//!
//! ```text
//! process "engines"   engine 0, ...          when they wait for a slot
//! process "slots"     slot 0, slot 1, ...    reading, copying, held: one row for each slot in use
//! process "load"      load, cuda:0, ...      opened, first and last tensor, downgrades, retries
//! ```
//!
//! The file is opened before the load starts, so that no load is wasted when the file cannot be
//! written. It is written when the load has ended, even if it failed. A file that the load reads is
//! refused as soon as the files of the checkpoint are known.

use super::rows::rows;
use crate::failure::Outcome;
use ringload::internals::OutputFile;
use ringload::timeline::{Period, SlotSpan, Stage, Step, Timeline, TraceEvent};
use ringload::{Checkpoint, Device, Location, LocationText, TensorStream};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

const ENGINES: u32 = 1;
const SLOTS: u32 = 2;
const LOAD: u32 = 3;

/// The file that a trace will be written to.
pub struct TraceFile {
    output: OutputFile,
    /// Whether the file was created and is still empty; it is then removed on drop.
    is_new: bool,
}

impl TraceFile {
    /// Opens the file without changing its content.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn open(path: &Path) -> Outcome<Self> {
        let output = OutputFile::open(path, "trace")?;
        Ok(Self { is_new: output.is_new, output })
    }

    /// Checks that the file is none of those that a load of `checkpoint` reads, nor its `manifest`.
    ///
    /// # Errors
    /// When it is, so that the trace would destroy the file.
    pub fn check(&self, checkpoint: &Checkpoint, manifest: Option<&Path>) -> Outcome {
        // A new file in a directory of the checkpoint is not one that was there.
        let left_out = checkpoint.left_out().iter().filter(|_| !self.is_new);
        let shards = checkpoint.shards().iter().map(|shard| shard.location());
        let locations = shards.chain(checkpoint.indexes()).chain(left_out);
        let files = locations.filter_map(|location| match location {
            Location::File(path) => Some(path.as_path()),
            _ => None,
        });
        Ok(self.output.check_is_none_of(files.chain(manifest))?)
    }

    /// Replaces the content of the file with the trace.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(mut self, trace: &Trace) -> Outcome {
        self.is_new = false;
        let file = &self.output.file;
        let mut out = BufWriter::new(file);
        // Pipes and terminals cannot be truncated.
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { file.set_len(0) } else { Ok(()) };
        emptied
            .and_then(|()| serde_json::to_writer(&mut out, trace).map_err(io::Error::from))
            .and_then(|()| writeln!(out))
            .and_then(|()| out.flush())
            .map_err(|error| self.output.error(error).into())
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        if self.is_new {
            // An empty file is not a valid trace.
            drop(fs::remove_file(self.output.path()));
        }
    }
}

/// The content of the file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    trace_events: Vec<Value>,
    display_time_unit: &'static str,
    other_data: Value,
}

impl Trace {
    /// The trace of `timeline`, which is that of `stream`, which loads `locations`.
    pub fn new(stream: &TensorStream, timeline: &Timeline, locations: &[LocationText]) -> Self {
        let summary = stream.summary();
        let shards = stream.checkpoint().shards();
        let shards: Vec<_> =
            shards.iter().map(|shard| LocationText::from(shard.location())).collect();
        let other_data = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "locations": locations,
            "ring_bytes": summary.ring_bytes,
            "memory_limit_bytes": summary.memory_limit_bytes,
            "bytes": summary.bytes,
            "seconds": summary.seconds,
            "engines": summary.engines,
            "backend": summary.backend,
        });
        let trace_events = events(timeline, &shards, summary.engines);
        Self { trace_events, display_time_unit: "ms", other_data }
    }
}

fn events(timeline: &Timeline, shards: &[LocationText], engines: usize) -> Vec<Value> {
    let periods: Vec<_> = timeline.slots.iter().map(lifetime).collect();
    let rows = rows(&periods);
    let row_count = rows.iter().max().map_or(0, |last| last + 1);
    let mut events = named(ENGINES, "engines", (0..engines).map(|i| (i, format!("engine {i}"))));
    events.extend(named(SLOTS, "slots", (0..row_count).map(|i| (i, format!("slot {i}")))));
    let gpus: BTreeSet<_> = timeline.steps.iter().filter_map(|step| step.device).collect();
    let gpus = gpus.into_iter().map(|gpu| (row_of(Some(gpu)), gpu.to_string()));
    events.extend(named(LOAD, "load", [(0, "load".to_owned())].into_iter().chain(gpus)));
    events.extend(
        timeline
            .waits
            .iter()
            .map(|wait| complete("wait for a slot", "wait", (ENGINES, wait.engine), wait.period)),
    );
    let slots = timeline.slots.iter().zip(rows);
    events.extend(slots.flat_map(|(slot, row)| stages(slot, row, shards)));
    events.extend(timeline.steps.iter().map(step));
    events.extend(timeline.events.iter().map(instant));
    events
}

/// The metadata events that name a process and its threads.
fn named(pid: u32, process: &str, threads: impl Iterator<Item = (usize, String)>) -> Vec<Value> {
    let name = |what: &str, tid: usize, name: &str| json!({ "ph": "M", "name": what, "pid": pid, "tid": tid, "args": { "name": name } });
    let thread = |(tid, text): (usize, String)| name("thread_name", tid, &text);
    [name("process_name", 0, process)].into_iter().chain(threads.map(thread)).collect()
}

/// A span, with its times in microseconds.
fn complete(name: &str, cat: &str, (pid, tid): (u32, usize), period: Period) -> Value {
    json!({
        "ph": "X", "name": name, "cat": cat, "pid": pid, "tid": tid,
        "ts": microseconds(period.start),
        "dur": microseconds(period.end.saturating_sub(period.start)),
    })
}

/// The time from the allocation of the slot to its release.
fn lifetime(slot: &SlotSpan) -> Period {
    let start = slot.stages.first().map_or(Duration::ZERO, |(_, period)| period.start);
    let end = slot.stages.last().map_or(start, |(_, period)| period.end);
    Period { start, end }
}

fn stages(slot: &SlotSpan, row: usize, shards: &[LocationText]) -> impl Iterator<Item = Value> {
    let event = move |&(stage, period): &(Stage, Period)| {
        let mut args = json!({
            "bytes": slot.bytes,
            "shard": shards.get(slot.shard),
            "offset": slot.offset_bytes,
            "engine": slot.engine,
        });
        if stage == Stage::Reading && !slot.paths.is_empty() {
            args["path"] = slot.paths.join("+").into();
        }
        let name = stage.as_str();
        let mut event = complete(name, name, (SLOTS, row), period);
        event["args"] = args;
        event
    };
    slot.stages.iter().map(event)
}

fn step(step: &Step) -> Value {
    let cat = if step.device.is_some() { "context" } else { "load" };
    complete(step.what, cat, (LOAD, row_of(step.device)), step.period)
}

/// The row of the load, or that of a GPU below it.
fn row_of(device: Option<Device>) -> usize {
    device.and_then(Device::ordinal).map_or(0, |ordinal| ordinal as usize + 1)
}

/// An instant event; its scope is the process of the load.
fn instant(event: &TraceEvent) -> Value {
    let (name, ts) = (event.what, microseconds(event.at));
    let mut instant = json!({ "ph": "i", "name": name, "cat": "load", "pid": LOAD, "tid": 0, "ts": ts, "s": "p" });
    if !event.why.is_empty() {
        instant["args"] = json!({ "why": event.why });
    }
    instant
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}
