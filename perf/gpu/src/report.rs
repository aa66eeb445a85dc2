//! The report: Markdown tables and one JSON object.

use crate::machine::Machine;
use anyhow::{Context, Result};
use ringload_measure::stats::{Bound, median};
use ringload_measure::table::{markdown, number};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// One check.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
pub struct Figure {
    name: String,
    unit: &'static str,
    /// The median of the turns.
    figure: Option<f64>,
    turns: Vec<f64>,
    /// `None` for a figure that only explains others.
    target: Option<Target>,
    reached: Option<bool>,
}

/// The results of a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    version: &'static str,
    machine: Machine,
    pub checks: Vec<Check>,
    figures: Vec<Figure>,
    /// The failed measurements with their reasons. A target that needs one of them counts as
    /// missed.
    skipped: Vec<String>,
    pub notes: Vec<String>,
    /// The number of turns that each figure needs.
    #[serde(skip)]
    pub turns: usize,
    seconds: f64,
    #[serde(skip)]
    began: Option<Instant>,
}

impl Figure {
    /// The name, the target if there is one, and the median with unit and range.
    fn row(&self) -> Vec<String> {
        let unit = if self.unit.is_empty() { "x" } else { self.unit };
        let mut text =
            self.figure.map_or("-".into(), |median| format!("{} {unit}", number(median)));
        let ends = [f64::min, f64::max].map(|end| self.turns.iter().copied().reduce(end));
        if let ([Some(least), Some(most)], true) = (ends, self.turns.len() > 1) {
            text += &format!(" ({} to {})", number(least), number(most));
        }
        let target = self.target.map(|(bound, target)| format!("{} {target}", bound.as_str()));
        let (name, turns) = (self.name.clone(), self.turns.len().to_string());
        [Some(name), target, Some(text), Some(turns)].into_iter().flatten().collect()
    }
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            began: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// Adds a figure by its `turns`, of which the first warmed up. Without a target it explains
    /// others; with one it has to reach it, and with too few turns it fails.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        turns: &[f64],
        target: impl Into<Option<Target>>,
    ) {
        let (name, target) = (name.into(), target.into());
        let turns = turns.get(1..).unwrap_or_default().to_vec();
        let figure = median(&turns);
        let enough = turns.len() >= self.turns;
        let reached = target.map(|(bound, target)| {
            enough && figure.is_some_and(|figure| bound.is_met(figure, target))
        });
        self.figures.push(Figure { name, unit, figure, turns, target, reached });
    }

    pub fn skip(&mut self, why: impl Into<String>) {
        let why = why.into();
        eprintln!("skipped: {why}");
        self.skipped.push(why);
    }

    /// Whether every check passed and every target was measured and reached.
    pub fn is_good(&self) -> bool {
        let reached = self.figures.iter().all(|figure| figure.reached != Some(false));
        are_good(&self.checks) && reached && self.skipped.is_empty()
    }

    /// Writes `gpu.md` and `gpu.json` into `directory`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&mut self, directory: &Path) -> Result<()> {
        self.seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (name, text) in [("gpu.json", json), ("gpu.md", self.markdown())] {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    pub fn markdown(&self) -> String {
        let (judged, others): (Vec<_>, Vec<_>) =
            self.figures.iter().partition(|figure| figure.target.is_some());
        let is_reached = |figure: &&&Figure| figure.reached == Some(true);
        let judgement = |figure: &&Figure| {
            let outcome = if is_reached(&figure) { "pass" } else { "FAIL" };
            [figure.row(), vec![outcome.to_owned()]].concat()
        };
        let rows: Vec<_> = judged.iter().map(judgement).collect();
        let explaining: Vec<_> = others.iter().map(|figure| figure.row()).collect();
        let mut text = format!(
            "# Loads onto a GPU, ringload {}\n\n{}\n{}\n{} of {} targets are reached.\n\n{}\n{}",
            self.version,
            self.machine.table(),
            table_of_checks(&self.checks),
            judged.iter().filter(is_reached).count(),
            judged.len(),
            markdown(&["to be reached", "target", "median", "turns", ""], &rows),
            markdown(&["what explains it", "median", "turns"], &explaining),
        );
        for (head, lines) in [("Notes", &self.notes), ("Not measured", &self.skipped)] {
            if !lines.is_empty() {
                text += &format!("\n{head}:\n\n- {}\n", lines.join("\n- "));
            }
        }
        text + &format!("\nThe run took {:.0} s.\n", self.seconds)
    }
}

/// Whether all checks passed.
pub fn are_good(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.error.is_none())
}

pub fn table_of_checks(checks: &[Check]) -> String {
    let row = |Check { name, cases, error }: &Check| {
        let outcome = error.as_ref().map_or("pass".into(), |error| format!("FAIL: {error}"));
        vec![name.clone(), cases.to_string(), outcome]
    };
    markdown(&["check", "cases", ""], &checks.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Bound::{AtLeast, AtMost};

    fn report() -> Report {
        let mut report = Report::new(Machine::default());
        report.turns = 3;
        report
    }

    #[test]
    fn a_target_is_reached_by_enough_turns_on_its_side() {
        let mut report = report();
        report.add("a", "", &[7.0, 0.8, 0.9, 1.0], (AtLeast, 0.9));
        report.add("b", "GB/s", &[7.0, 123.4], None);
        assert!(report.is_good());
        let text = report.markdown();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("| a | >= 0.9 | 0.900 x (0.800 to 1.00) | 3 | pass |"), "{text}");
        assert!(text.contains("| b | 123 GB/s | 1 |"), "{text}");
    }

    #[test]
    fn what_is_missed_wrong_or_left_out_is_not_good() {
        let bad: [fn(&mut Report); 6] = [
            |report| report.add("a", "", &[0.8; 4], (AtLeast, 0.9)),
            |report| report.add("a", "", &[0.9; 3], (AtLeast, 0.9)),
            |report| report.add("a", "", &[], (AtLeast, 0.9)),
            |report| report.add("a", "", &[f64::NAN; 4], (AtMost, 0.9)),
            |report| report.skip("a"),
            |report| {
                let error = Some("wrong".into());
                report.checks.push(Check { name: "a".into(), cases: 1, error });
            },
        ];
        for (index, spoil) in bad.into_iter().enumerate() {
            let mut report = report();
            spoil(&mut report);
            assert!(!report.is_good(), "{index}");
        }
    }
}
