//! Parses and checks the traces that `ringload load --trace` writes.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub const ENGINES: u64 = 1;
pub const SLOTS: u64 = 2;
pub const LOAD: u64 = 3;

/// An event with a duration, in nanoseconds, which the file represents exactly.
#[derive(Debug)]
pub struct Span {
    pub name: String,
    pub category: String,
    pub row: (u64, u64),
    pub start: u64,
    pub end: u64,
    pub args: Value,
}

#[derive(Debug)]
pub struct Trace {
    pub spans: Vec<Span>,
    /// Instant events by name: time and reason.
    pub events: BTreeMap<String, Vec<(u64, String)>>,
    /// The names of rows.
    pub rows: BTreeMap<(u64, u64), String>,
    pub processes: BTreeMap<u64, String>,
    pub about: Value,
}

impl Trace {
    pub fn parse(text: &str) -> Self {
        let file: Value = serde_json::from_str(text).unwrap();
        assert_eq!(file["displayTimeUnit"], "ms");
        let mut trace = Self {
            spans: Vec::new(),
            events: BTreeMap::new(),
            rows: BTreeMap::new(),
            processes: BTreeMap::new(),
            about: file["otherData"].clone(),
        };
        for event in file["traceEvents"].as_array().unwrap() {
            trace.add(event);
        }
        trace
    }

    fn add(&mut self, event: &Value) {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let row = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let name = event["args"]["name"].as_str().unwrap_or_default().to_owned();
        match (&*text("ph"), &*text("name")) {
            ("M", "process_name") => drop(self.processes.insert(row.0, name)),
            ("M", "thread_name") => drop(self.rows.insert(row, name)),
            ("X", _) => {
                let start = nanoseconds(&event["ts"]);
                let (end, args) = (start + nanoseconds(&event["dur"]), event["args"].clone());
                let (name, category) = (text("name"), text("cat"));
                self.spans.push(Span { name, category, row, start, end, args });
            }
            ("i", name) => {
                assert_eq!(event["s"], "p");
                let why = event["args"]["why"].as_str().unwrap_or_default().to_owned();
                let at = nanoseconds(&event["ts"]);
                self.events.entry(name.to_owned()).or_default().push((at, why));
            }
            _ => panic!("unknown event {event}"),
        }
    }

    pub fn of(&self, category: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.category == category).collect()
    }

    pub fn categories(&self, process: u64) -> BTreeSet<&str> {
        let spans = self.spans.iter().filter(|span| span.row.0 == process);
        spans.map(|span| &*span.category).collect()
    }

    pub fn at(&self, event: &str) -> u64 {
        let [(at, _)] = &self.events[event][..] else { panic!("{:?}", self.events) };
        *at
    }

    /// Checks what holds for every trace of a load that took at most `wall_seconds`.
    #[track_caller]
    pub fn check(&self, wall_seconds: f64) {
        let names = ["engines", "slots", "load"].map(String::from);
        assert_eq!(self.processes, BTreeMap::from_iter((ENGINES..).zip(names)));
        for span in &self.spans {
            assert!(span.end as f64 <= wall_seconds * 1e9, "{span:?}");
            assert!(self.rows.contains_key(&span.row), "{span:?} has no row");
        }
        let mut rows: BTreeMap<_, Vec<&Span>> = BTreeMap::new();
        self.spans.iter().for_each(|span| rows.entry(span.row).or_default().push(span));
        for (row, spans) in rows.iter_mut().filter(|(row, _)| row.0 != LOAD) {
            spans.sort_by_key(|span| (span.start, span.end));
            for pair in spans.windows(2) {
                let apart = pair[0].end <= pair[1].start;
                assert!(apart, "they overlap in row {row:?}: {pair:?}");
            }
        }
        for span in self.spans.iter().filter(|span| span.row.0 == SLOTS) {
            assert!(span.args["bytes"].as_u64().unwrap() > 0, "{span:?}");
            assert!(span.args["offset"].is_u64() && span.args["engine"].is_u64(), "{span:?}");
            assert!(span.args["shard"].as_str().unwrap().contains(".safetensors"), "{span:?}");
        }
        let slot_rows = self.rows.keys().filter(|row| row.0 == SLOTS).count();
        assert_eq!(slot_rows as u64, self.most_in_use(|_| 1), "slots at once");
    }

    /// The maximum over time of the sum of `of` over the slots in use.
    fn most_in_use(&self, of: impl Fn(&Span) -> u64) -> u64 {
        let spans = self.spans.iter().filter(|span| span.row.0 == SLOTS);
        let mut changes: Vec<_> = spans
            .flat_map(|span| [(span.start, true, of(span)), (span.end, false, of(span))])
            .collect();
        // A slot that ends when another begins does not overlap with it.
        changes.sort_by_key(|&(at, begins, _)| (at, begins));
        let (mut now, mut most) = (0_i64, 0);
        for (_, begins, count) in changes {
            now += if begins { count as i64 } else { -(count as i64) };
            most = most.max(now);
        }
        assert_eq!(now, 0);
        most as u64
    }

    pub fn bytes_in_use(&self) -> u64 {
        self.most_in_use(|span| span.args["bytes"].as_u64().unwrap())
    }

    /// All bytes that were read into slots, and their read paths.
    pub fn read(&self) -> (u64, BTreeSet<&str>) {
        let reading = self.of("reading");
        let bytes = reading.iter().map(|span| span.args["bytes"].as_u64().unwrap()).sum();
        let paths = reading.iter().filter_map(|span| span.args["path"].as_str()).collect();
        (bytes, paths)
    }
}

/// A time of the file, which is in microseconds, in nanoseconds.
fn nanoseconds(value: &Value) -> u64 {
    let microseconds = value.as_f64().unwrap();
    assert!(microseconds >= 0.0);
    (microseconds * 1e3).round() as u64
}
