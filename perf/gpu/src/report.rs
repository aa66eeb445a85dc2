//! The report: Markdown tables and one JSON object.

use crate::machine::Machine;
use crate::turns::Samples;
use ringload::{Error, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: String,
    /// The number of cases.
    pub cases: usize,
    /// The failure.
    pub error: Option<String>,
}

/// The side of the target on which a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// One figure and its target.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    /// The median of the turns.
    pub figure: Option<f64>,
    pub turns: Vec<f64>,
    /// `None` for a figure that only explains others.
    pub target: Option<Target>,
    pub reached: Option<bool>,
}

/// The results of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    version: &'static str,
    machine: Machine,
    pub checks: Vec<Check>,
    pub figures: Vec<Figure>,
    /// The failed measurements with their reasons. A target that needs one of them counts as
    /// missed.
    pub skipped: Vec<String>,
    pub notes: Vec<String>,
    /// The number of turns that each figure needs.
    #[serde(skip)]
    pub turns: usize,
    seconds: f64,
    #[serde(skip)]
    began: std::time::Instant,
}

impl Target {
    fn is_reached(self, figure: f64) -> bool {
        match self {
            Target::AtLeast(target) => figure >= target,
            Target::AtMost(target) => figure <= target,
        }
    }

    fn text(self) -> String {
        match self {
            Target::AtLeast(target) => format!(">= {target}"),
            Target::AtMost(target) => format!("<= {target}"),
        }
    }
}

impl Figure {
    /// The median with unit and range, as text.
    fn median(&self) -> String {
        let Some(median) = self.figure else { return "-".into() };
        let unit = if self.unit.is_empty() { "x" } else { self.unit };
        let range = Samples(self.turns.clone()).range().filter(|_| self.turns.len() > 1);
        let range = range.map_or(String::new(), |(least, most)| {
            format!(" ({} to {})", number(least), number(most))
        });
        format!("{} {unit}{range}", number(median))
    }
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            checks: Vec::new(),
            figures: Vec::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
            turns: 0,
            seconds: 0.0,
            began: std::time::Instant::now(),
        }
    }

    /// Adds a figure that has to reach `target`. With too few turns it fails.
    pub fn judge(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        samples: &Samples,
        target: Target,
    ) {
        let figure = samples.median();
        let enough = samples.0.len() >= self.turns;
        let reached = figure.is_some_and(|figure| enough && target.is_reached(figure));
        let (turns, name) = (samples.0.clone(), name.into());
        let (target, reached) = (Some(target), Some(reached));
        self.figures.push(Figure { name, unit, figure, turns, target, reached });
    }

    /// Adds a figure that explains others.
    pub fn explain(&mut self, name: impl Into<String>, unit: &'static str, samples: &Samples) {
        let (figure, turns) = (samples.median(), samples.0.clone());
        self.figures.push(Figure {
            name: name.into(),
            unit,
            figure,
            turns,
            target: None,
            reached: None,
        });
    }

    pub fn skip(&mut self, why: impl Into<String>) {
        let why = why.into();
        eprintln!("skipped: {why}");
        self.skipped.push(why);
    }

    /// Whether every check passed and every target was measured and reached.
    pub fn is_good(&self) -> bool {
        let right = self.checks.iter().all(|check| check.error.is_none());
        let reached = self.figures.iter().all(|figure| figure.reached != Some(false));
        right && reached && self.skipped.is_empty()
    }

    /// Writes `gpu.md` and `gpu.json` into `directory`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&mut self, directory: &Path) -> Result<()> {
        self.seconds = self.began.elapsed().as_secs_f64();
        let json = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        for (name, text) in [("gpu.json", json), ("gpu.md", self.markdown())] {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .map_err(|error| Error::from_io(format_args!("write {}", path.display()), error))?;
        }
        Ok(())
    }

    pub fn markdown(&self) -> String {
        // Writing to a string does not fail.
        let mut text = format!("# Loads onto a GPU, ringload {}\n\n", self.version);
        text += &self.machine.markdown();
        text += &table_of_checks(&self.checks);
        let judged = |figure: &&Figure| figure.target.is_some();
        let reached = self.figures.iter().filter(|figure| figure.reached == Some(true)).count();
        let _ = writeln!(
            text,
            "\n{reached} of {} targets are reached.\n\n\
             | to be reached | target | median | turns | |\n| --- | --- | --- | --- | --- |",
            self.figures.iter().filter(judged).count()
        );
        for figure in self.figures.iter().filter(judged) {
            let target = figure.target.map_or(String::new(), Target::text);
            let outcome = if figure.reached == Some(true) { "pass" } else { "FAIL" };
            let (median, turns) = (figure.median(), figure.turns.len());
            let _ =
                writeln!(text, "| {} | {target} | {median} | {turns} | {outcome} |", figure.name);
        }
        text += "\n| what explains it | median | turns |\n| --- | --- | --- |\n";
        for figure in self.figures.iter().filter(|figure| !judged(figure)) {
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                figure.name,
                figure.median(),
                figure.turns.len()
            );
        }
        for (head, lines) in [("Notes", &self.notes), ("Not measured", &self.skipped)] {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{head}:\n");
                lines.iter().for_each(|line| _ = writeln!(text, "- {line}"));
            }
        }
        let _ = writeln!(text, "\nThe run took {:.0} s.", self.seconds);
        text
    }
}

pub fn table_of_checks(checks: &[Check]) -> String {
    let mut text = "\n| check | cases | |\n| --- | --- | --- |\n".to_owned();
    for Check { name, cases, error } in checks {
        let outcome = error.as_ref().map_or("pass".into(), |error| format!("FAIL: {error}"));
        let _ = writeln!(text, "| {name} | {cases} | {} |", outcome.replace('|', "\\|"));
    }
    text
}

/// Three figures that count.
fn number(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        small if small >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(Machine::default());
        report.turns = 3;
        report
    }

    #[test]
    fn a_target_is_reached_by_enough_turns_on_its_side() {
        let mut report = report();
        report.judge("a", "", &Samples(vec![0.8, 0.9, 1.0]), Target::AtLeast(0.9));
        report.explain("b", "GB/s", &Samples(vec![123.4]));
        assert!(report.is_good());
        let text = report.markdown();
        assert!(text.contains("| a | >= 0.9 | 0.900 x (0.800 to 1.00) | 3 | pass |"), "{text}");
        assert!(text.contains("| b | 123 GB/s | 1 |"), "{text}");
    }

    #[test]
    fn what_is_missed_wrong_or_left_out_is_not_good() {
        let bad: [fn(&mut Report); 5] = [
            |report| report.judge("a", "", &Samples(vec![0.8; 3]), Target::AtLeast(0.9)),
            |report| report.judge("a", "", &Samples(vec![0.9; 2]), Target::AtLeast(0.9)),
            |report| report.judge("a", "", &Samples(vec![f64::NAN; 3]), Target::AtMost(0.9)),
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
