//! What a step prints: records, one JSON object a line, each as soon as it is known.
//!
//! A figure is printed again after each turn, with all its turns so far, so that a step that is cut
//! off leaves what it has measured. Steps in Python print the same lines (`steps/common.py`).

use crate::machine::Machine;
use anyhow::Result;
use ringload_measure::stats::{Bound, median};
use ringload_measure::table::number;
use serde::{Deserialize, Serialize};

/// One check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    /// The number of cases.
    pub cases: usize,
    /// The failure.
    pub error: Option<String>,
}

/// A bound, and the figure that has to be on its side.
pub type Target = (Bound, f64);

/// One figure and its target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub turns: Vec<f64>,
    /// `None` for a figure that only explains others.
    pub target: Option<Target>,
    /// The number of turns that the target needs.
    pub enough: usize,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It ran to its end; its checks and figures say with which results.
    Done,
    /// It broke off with an error.
    Failed,
    /// It took longer than a step may.
    OverItsLimit,
    /// The time of the run was over.
    Cut,
}

/// A line of a step, or of the program that runs the steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A step begins; what it printed in an earlier run, except figures, does not count any more.
    Begin {
        seconds_at_most: f64,
    },
    Machine(Machine),
    Check(Check),
    Figure(Figure),
    /// A fact that explains figures.
    Note {
        text: String,
    },
    /// What could not be measured.
    Skip {
        why: String,
    },
    End {
        how: Ending,
        seconds: f64,
        error: Option<String>,
    },
}

impl Figure {
    /// The median of the turns.
    pub fn median(&self) -> Option<f64> {
        median(&self.turns)
    }

    /// Whether there are enough turns, and their median is on the right side of the target.
    pub fn is_reached(&self) -> Option<bool> {
        let enough = self.turns.len() >= self.enough;
        let figure = self.median().filter(|figure| enough && !figure.is_nan());
        self.target.map(|(bound, target)| figure.is_some_and(|one| bound.is_met(one, target)))
    }

    /// The name, the target if there is one, the median with unit and range, and the turns.
    pub fn row(&self) -> Vec<String> {
        let unit = if self.unit.is_empty() { "x" } else { &self.unit };
        let mut text =
            self.median().map_or("-".into(), |median| format!("{} {unit}", number(median)));
        let ends = [f64::min, f64::max].map(|end| self.turns.iter().copied().reduce(end));
        if let ([Some(least), Some(most)], true) = (ends, self.turns.len() > 1) {
            text += &format!(" ({} to {})", number(least), number(most));
        }
        let target = self.target.map(|(bound, target)| format!("{} {target}", bound.as_str()));
        let (name, turns) = (self.name.clone(), self.turns.len().to_string());
        [Some(name), target, Some(text), Some(turns)].into_iter().flatten().collect()
    }
}

/// Where a step puts its records.
pub struct Recorder {
    sink: Box<dyn FnMut(Record)>,
    /// The notes, and what was skipped.
    said: Vec<String>,
    /// The number of turns that each target needs.
    pub enough: usize,
}

impl Recorder {
    /// A recorder whose records go to `sink`.
    pub fn new(enough: usize, sink: impl FnMut(Record) + 'static) -> Self {
        Self { sink: Box::new(sink), said: Vec::new(), enough }
    }

    /// Prints each record as a line of the standard output.
    pub fn printing(enough: usize) -> Self {
        Self::new(enough, |record| match serde_json::to_string(&record) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("error: a record cannot be written: {error}"),
        })
    }

    /// Adds a figure by its `turns` so far, of which the first warmed up. Without a target it explains
    /// others; with one it has to reach it. A figure of the same name is replaced.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        unit: &str,
        turns: &[f64],
        target: impl Into<Option<Target>>,
    ) {
        let turns = turns.get(1..).unwrap_or_default().to_vec();
        let (name, unit, target) = (name.into(), unit.to_owned(), target.into());
        if !turns.iter().all(|turn| turn.is_finite()) {
            return self.skip(format!("{name}: a turn has no number")); // JSON has none for it
        }
        self.record(Record::Figure(Figure { name, unit, turns, target, enough: self.enough }));
    }

    /// Adds a check; `work` returns the number of passed cases.
    pub fn check(&mut self, name: impl Into<String>, work: impl FnOnce() -> Result<usize>) {
        let name = name.into();
        let (cases, error) = match work() {
            Ok(cases) => (cases, None),
            Err(error) => (0, Some(format!("{error:#}"))),
        };
        let outcome = error.as_ref().map_or("right".to_owned(), |error| format!("WRONG: {error}"));
        eprintln!("check: {name}: {outcome}");
        self.record(Record::Check(Check { name, cases, error }));
    }

    /// Adds what could not be measured, unless it was added before.
    pub fn skip(&mut self, why: impl Into<String>) {
        let why = why.into();
        if self.is_new(&why) {
            eprintln!("skipped: {why}");
            self.record(Record::Skip { why });
        }
    }

    /// Adds a note, unless it was added before.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.is_new(&text) {
            self.record(Record::Note { text });
        }
    }

    fn is_new(&mut self, text: &str) -> bool {
        let is_new = !self.said.iter().any(|said| said == text);
        if is_new {
            self.said.push(text.to_owned());
        }
        is_new
    }

    pub fn record(&mut self, record: Record) {
        (self.sink)(record);
    }
}
