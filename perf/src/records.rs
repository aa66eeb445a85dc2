//! The records of a measurement: one JSON object per line, in the order in which they are measured.
//!
//! The table on the terminal and the report are made from records alone, so a file of records can be
//! rendered again later and read by other tools.
//!
//! ```text
//! session            once, the first
//! case               before the runs of a case: what is compared
//! run                every run that counts
//! comparison         two clients of a case
//! noise              the noise of the machine during a scenario
//! target             a figure with its target
//! trace              one load's timeline
//! skipped            what could not be measured, and why
//! ```

use crate::store::Counts;
use ringload_measure::figures::Figures;
pub use ringload_measure::stats::Bound;
use ringload_measure::stats::Difference;
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

/// What was measured, and on which machine.
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
    /// The command line.
    pub command: String,
}

/// The properties of the machine that figures depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub file_system: String,
    /// The NVIDIA GPU, if there is one.
    #[serde(alias = "card")]
    pub gpu: Option<String>,
}

/// Clients that run in turns over the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub scenario: String,
    pub case: String,
    /// A title: what is loaded, from where, in which state.
    pub title: String,
    /// The point of a curve, if the case is one.
    pub point: Option<Point>,
}

/// One point of a scaling curve, which consists of the cases with the same curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// For example "ring size".
    pub curve: String,
    /// For example "MiB".
    pub unit: String,
    pub x: f64,
}

/// The role of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// ringload.
    Own,
    /// A duplicate of the client: the difference between both is noise.
    Control,
    /// An alternative to ringload.
    Peer,
    /// A limit of the hardware or the kernel.
    Limit,
}

/// One run of one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub scenario: String,
    pub case: String,
    pub client: String,
    pub role: Role,
    /// From 0; the warm-up turn is not recorded.
    pub turn: usize,
    #[serde(flatten)]
    pub figures: Figures,
    /// The CPU time of the server during the run.
    pub server_cpu_seconds: Option<f64>,
    /// What an emulated store counted during the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Counts>,
}

impl Run {
    /// The run of one client of `case`.
    pub fn of(case: &Case, client: &str, role: Role, turn: usize, figures: Figures) -> Self {
        let (scenario, case) = (case.scenario.clone(), case.case.clone());
        let client = client.to_owned();
        Self { scenario, case, client, role, turn, figures, server_cpu_seconds: None, server: None }
    }
}

/// A run is read as its figures.
impl std::ops::Deref for Run {
    type Target = Figures;

    fn deref(&self) -> &Figures {
        &self.figures
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    Seconds,
    CpuSecondsPerGigabyte,
}

impl Figure {
    pub fn of(self, run: &Run) -> f64 {
        match self {
            Figure::Seconds => run.seconds,
            Figure::CpuSecondsPerGigabyte => run.cpu_seconds_per_gigabyte(),
        }
    }
}

/// Two clients of a case: `own` over `other`, turn by turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub scenario: String,
    pub case: String,
    pub figure: Figure,
    pub own: String,
    pub other: String,
    /// The median of the ratios of the turns, and the interval that contains the true median with a
    /// confidence of at least 93 %.
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    #[serde(alias = "verdict")]
    pub difference: Difference,
}

/// The noise during a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    pub scenario: String,
    /// The ratio of the slowest and the fastest run of a fixed loop between the runs of the clients.
    pub loop_spread: f64,
    /// CPU time that the host gave to others, as a share of all.
    pub stolen_share: f64,
    /// CPU time of processes that are not part of the measurement, as a share of all.
    pub others_share: f64,
}

/// A figure and its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// For example "engine.cold.wall".
    pub id: String,
    /// For example "engine" or "object stores".
    pub part: String,
    pub sentence: String,
    pub bound: Bound,
    pub target: f64,
    /// `None` where it was not measured.
    pub figure: Option<f64>,
    /// The interval of the figure, if it has turns.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Why it was not measured, or an explanation.
    pub note: Option<String>,
}

impl Target {
    /// The same target with its figure, or with the reason why there is none.
    pub fn met(
        &self,
        figure: Option<f64>,
        interval: Option<(f64, f64)>,
        note: Option<String>,
    ) -> Self {
        let (low, high) = interval.unzip();
        Self { figure, low, high, note, ..self.clone() }
    }

    /// Whether the target is reached; `None` if there is no figure.
    pub fn is_reached(&self) -> Option<bool> {
        self.figure.map(|figure| self.bound.is_met(figure, self.target))
    }

    /// Whether the target is within the interval of the figure, so that another run may differ.
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
