//! The results of a session: its records, arranged by scenarios and cases. The report and the figures
//! of documents are made from them.

use crate::measured::Measured;
use crate::records::{
    Comparison, Noise, Point, Record, Role, Run, Session, Skipped, Target, Trace,
};
use crate::targets;
use anyhow::Context as _;
use ringload_measure::stats::median;
use std::path::Path;

/// All measurements.
#[derive(Default)]
pub struct Results<'a> {
    pub sessions: Vec<&'a Session>,
    pub targets: Vec<&'a Target>,
    pub scenarios: Vec<Scenario<'a>>,
}

#[derive(Default)]
pub struct Scenario<'a> {
    pub name: &'a str,
    /// The points of a curve follow each other.
    pub cases: Vec<Case<'a>>,
    pub noise: Vec<&'a Noise>,
    pub traces: Vec<&'a Trace>,
    pub skipped: Vec<&'a Skipped>,
}

#[derive(Default)]
pub struct Case<'a> {
    pub name: &'a str,
    pub title: &'a str,
    pub point: Option<&'a Point>,
    pub measured: Measured,
    pub comparisons: Vec<&'a Comparison>,
}

/// A figure of a run; `None` if the run has none.
pub type Figure = fn(&Run) -> Option<f64>;

pub const SECONDS: Figure = |run| Some(run.seconds);
pub const SPEED: Figure = |run| (run.seconds > 0.0).then(|| run.gigabytes_per_second());
pub const CPU: Figure = |run| (run.bytes > 0).then(|| run.cpu_seconds_per_gigabyte());
pub const SERVER_CPU: Figure = |run| Some(run.server_cpu_seconds? / run.gigabytes());
pub const PEAK_MIB: Figure = |run| Some(run.peak_rss_bytes? as f64 / 1_048_576.0);
pub const FIRST: Figure = |run| run.first_tensor_seconds;
pub const LAST: Figure = |run| run.last_tensor_seconds;
pub const BYTES: Figure = |run| Some(run.bytes as f64);

/// The lowest, the median and the highest figure.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

/// The records of a file, one JSON object a line.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; check the path", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let records = lines.map(|(index, line)| {
        serde_json::from_str(line).with_context(|| {
            format!(
                "line {} of {} is not a record of a measurement; remove it, or measure again",
                index + 1,
                path.display()
            )
        })
    });
    records.collect()
}

/// Whether a figure is valid.
pub fn is_usable(figure: f64) -> bool {
    figure.is_finite() && figure.abs() < 1e15
}

impl<'a> Results<'a> {
    pub fn of(records: &'a [Record]) -> Self {
        let mut results = Self::default();
        records.iter().for_each(|record| results.add(record));
        results.targets.sort_by_key(|target| targets::place(&target.id));
        results
    }

    fn add(&mut self, record: &'a Record) {
        match record {
            Record::Session(session) => self.sessions.push(session),
            Record::Target(target) => self.targets.push(target),
            Record::Case(it) => {
                let case = self.case(&it.scenario, &it.case);
                case.title = &it.title;
                case.point = it.point.as_ref().filter(|point| is_usable(point.x));
            }
            Record::Run(run) => self.case(&run.scenario, &run.case).measured.add(run.clone()),
            Record::Comparison(it) => self.case(&it.scenario, &it.case).comparisons.push(it),
            Record::Noise(noise) => self.scenario(&noise.scenario).noise.push(noise),
            Record::Trace(trace) => self.scenario(&trace.scenario).traces.push(trace),
            Record::Skipped(skipped) => self.scenario(&skipped.scenario).skipped.push(skipped),
        }
    }

    fn scenario(&mut self, name: &'a str) -> &mut Scenario<'a> {
        let new = || Scenario { name, ..Scenario::default() };
        found(&mut self.scenarios, |it| it.name == name, new)
    }

    fn case(&mut self, scenario: &'a str, name: &'a str) -> &mut Case<'a> {
        let new = || Case { name, title: name, ..Case::default() };
        found(&mut self.scenario(scenario).cases, |it| it.name == name, new)
    }
}

impl Case<'_> {
    /// The spread of a client's runs; figures that are no measurements are left out.
    pub fn spread(&self, client: &str, figure: Figure) -> Option<Spread> {
        let figures = self.measured.runs(client).iter().filter_map(figure);
        let figures: Vec<f64> = figures.filter(|it| is_usable(*it) && *it >= 0.0).collect();
        Some(Spread {
            low: figures.iter().copied().reduce(f64::min)?,
            median: median(&figures)?,
            high: figures.iter().copied().reduce(f64::max)?,
        })
    }
}

/// Every client of some cases, by role.
pub fn clients<'b>(cases: impl IntoIterator<Item = &'b Case<'b>>) -> Vec<(&'b str, Role)> {
    let mut clients: Vec<(&str, Role)> = Vec::new();
    for client in cases.into_iter().flat_map(|case| case.measured.clients()) {
        found(&mut clients, |it| it.0 == client.0, || client);
    }
    clients.sort_by_key(|(_, role)| *role);
    clients
}

/// The highest figure of any client in some cases.
pub fn highest(cases: &[Case<'_>], figure: Figure) -> Option<f64> {
    let spreads = cases.iter().flat_map(|case| {
        case.measured.clients().filter_map(move |(client, _)| case.spread(client, figure))
    });
    spreads.map(|spread| spread.high).reduce(f64::max)
}

/// The item of a list that `is` the wanted one; a `new` one if there is none.
fn found<T>(all: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let known = all.iter().position(is);
    let index = known.unwrap_or_else(|| {
        all.push(new());
        all.len() - 1
    });
    &mut all[index]
}
