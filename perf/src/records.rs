//! What a measurement writes: records, one JSON object a line, in the order in which they are known.
//!
//! The table on the terminal and the report are made of these and of nothing else, so a file of
//! them can be rendered again later, and read by other tools.
//!
//! ```text
//! session            once, the first
//! case               before the runs of a case: what is compared there
//! run                every run that counts, and no other
//! comparison         two clients of a case
//! noise              what else went on in the machine during a scenario
//! target             a figure that must be reached
//! trace              one load's timeline
//! skipped            what could not be measured, and why
//! ```

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    Session(Session),
    Case(Case),
    Run(Run),
    Comparison(Comparison),
    Noise(Noise),
    Target(Target),
    Trace(Trace),
    Skipped(Skipped),
}

/// What was measured, on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// ringload's version, and the commit if it is known.
    pub version: String,
    pub commit: Option<String>,
    /// The day, as 2026-11-22.
    pub date: String,
    pub machine: Machine,
    /// The peers and their versions.
    pub peers: BTreeMap<String, String>,
    /// How often each client runs in a case.
    pub turns: usize,
    /// How it was called.
    pub command: String,
}

/// The machine, as far as figures depend on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub file_system: String,
    /// The NVIDIA GPU, where there is one.
    pub gpu: Option<String>,
}

/// Clients that run in turns over the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub scenario: String,
    pub case: String,
    /// A line for readers: what is loaded, from where, in which state.
    pub title: String,
    /// Where the case is a point of a curve.
    pub point: Option<Point>,
}

/// One point of a scaling curve: cases with the same curve make it up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// As "ring size".
    pub curve: String,
    /// As "MiB".
    pub unit: String,
    pub x: f64,
}

/// What kind of client a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// ringload.
    Own,
    /// The very same client once more: how far two of them are apart is noise.
    Control,
    /// What a user would pick instead.
    Peer,
    /// What the hardware or the kernel allows.
    Limit,
}

/// One run of one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub scenario: String,
    pub case: String,
    pub client: String,
    pub role: Role,
    /// From 0; the one that only warmed up is not recorded.
    pub turn: usize,
    pub bytes: u64,
    /// As the client tells it, from its first call to the last byte; else the process's.
    pub seconds: f64,
    /// The same of its CPU time, of all threads, user and system.
    pub cpu_seconds: f64,
    /// From the process's start to its end.
    pub process_seconds: f64,
    /// From the process's start to the first tensor, and to the last, where they are measured.
    pub first_tensor_seconds: Option<f64>,
    pub last_tensor_seconds: Option<f64>,
    /// The most memory that the process had resident.
    pub peak_rss_bytes: Option<u64>,
    /// CPU time of the server meanwhile.
    pub server_cpu_seconds: Option<f64>,
}

impl Run {
    pub fn gigabytes(&self) -> f64 {
        self.bytes.max(1) as f64 / 1e9
    }

    pub fn gigabytes_per_second(&self) -> f64 {
        self.gigabytes() / self.seconds.max(1e-9)
    }

    pub fn cpu_seconds_per_gigabyte(&self) -> f64 {
        self.cpu_seconds / self.gigabytes()
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    Seconds,
    CpuSecondsPerGigabyte,
}

/// Whether two clients differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Less,
    More,
    /// The difference is no larger than that of equals.
    WithinNoise,
}

/// Two clients of a case: `own` over `other`, turn by turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub scenario: String,
    pub case: String,
    pub figure: Figure,
    pub own: String,
    pub other: String,
    /// The median of the turns' ratios, and the interval that holds the true one with 93 % or more.
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    pub verdict: Verdict,
}

/// What else went on during a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    pub scenario: String,
    /// The slowest over the fastest of many runs of one fixed loop, between the clients' runs.
    pub loop_spread: f64,
    /// CPU time that the host gave to others, as a share of all.
    pub stolen_share: f64,
    /// CPU time of processes that are not part of the measurement, as a share of all.
    pub others_share: f64,
}

/// On which side of the target a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost,
    AtLeast,
}

/// A figure that must be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// As "engine.cold.wall".
    pub id: String,
    /// As "engine", "object stores".
    pub part: String,
    pub sentence: String,
    pub bound: Bound,
    pub target: f64,
    /// `None` where it was not measured.
    pub figure: Option<f64>,
    /// The interval of the figure, where it is one of turns.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Why it was not measured, or what explains it.
    pub note: Option<String>,
}

impl Target {
    /// Whether the figure is on the right side; `None` where there is none.
    pub fn is_reached(&self) -> Option<bool> {
        self.figure.map(|figure| match self.bound {
            Bound::AtMost => figure <= self.target,
            Bound::AtLeast => figure >= self.target,
        })
    }

    /// Whether the target lies within the figure's interval, so that another run may say otherwise.
    pub fn is_close(&self) -> bool {
        self.low.zip(self.high).is_some_and(|(low, high)| low <= self.target && self.target <= high)
    }
}

/// One load's timeline, as `ringload load --trace` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub scenario: String,
    pub title: String,
    /// The Chrome trace: an object with `traceEvents`.
    pub trace: serde_json::Value,
}

/// What could not be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    pub scenario: String,
    pub what: String,
    pub why: String,
}
