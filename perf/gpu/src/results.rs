//! The results of all steps: `gpu.jsonl`, to which each record is appended when it comes, and the
//! tables that are made of it, `gpu.md` and `gpu.json`.
//!
//! Later runs append to the same file. A step that is begun again replaces its checks and notes; of
//! two figures of one name the one with more turns counts.

use crate::machine::Machine;
use crate::record::{Check, Ending, Figure, Record};
use anyhow::{Context, Result};
use ringload_measure::table::markdown;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A record and the step that it comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    step: String,
    #[serde(flatten)]
    record: Record,
}

/// All records that count.
#[derive(Debug, Default)]
pub struct Results {
    lines: Vec<Line>,
    /// Where records are appended, if they are kept.
    file: Option<File>,
    directory: PathBuf,
}

impl Results {
    /// The results in `directory`, to which more are appended.
    ///
    /// # Errors
    /// If the files cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("gpu.jsonl");
        let named = || path.display().to_string();
        let mut results = Self { directory: directory.to_owned(), ..Self::default() };
        if path.exists() {
            let text = fs::read_to_string(&path).with_context(named)?;
            // The last line of a run that was cut off may be incomplete.
            for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
                results.count(line);
            }
        }
        let mut file =
            OpenOptions::new().create(true).append(true).open(&path).with_context(named)?;
        file.write_all(b"\n").with_context(named)?;
        Ok(Self { file: Some(file), ..results })
    }

    /// Adds a record of `step`, and appends it to the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, step: &str, record: Record) -> Result<()> {
        let line = Line { step: step.to_owned(), record };
        if let Some(file) = &mut self.file {
            let text = serde_json::to_string(&line)? + "\n";
            file.write_all(text.as_bytes()).context("cannot write gpu.jsonl")?;
        }
        self.count(line);
        Ok(())
    }

    fn count(&mut self, line: Line) {
        match &line.record {
            Record::Begin { .. } => {
                let stays = |old: &Line| matches!(old.record, Record::Figure(_));
                self.lines.retain(|old| old.step != line.step || stays(old));
            }
            Record::Figure(new) => {
                let same = |old: &Line| {
                    let Record::Figure(figure) = &old.record else { return None };
                    (old.step == line.step && figure.name == new.name).then_some(figure.turns.len())
                };
                if let Some(index) = self.lines.iter().position(|old| same(old).is_some()) {
                    if same(&self.lines[index]) <= Some(new.turns.len()) {
                        self.lines[index] = line;
                    }
                    return;
                }
            }
            _ => {}
        }
        self.lines.push(line);
    }

    fn of_step(&self, step: &str) -> impl Iterator<Item = &Record> {
        let lines = self.lines.iter().filter(move |line| line.step == step);
        lines.map(|line| &line.record)
    }

    /// How `step` ended; `None` if it did not begin, or the run was stopped meanwhile.
    pub fn ending(&self, step: &str) -> Option<Ending> {
        self.of_step(step).find_map(|record| match record {
            Record::End { how, .. } => Some(*how),
            _ => None,
        })
    }

    /// Whether `step` began in any run.
    pub fn has_begun(&self, step: &str) -> bool {
        self.of_step(step).any(|record| matches!(record, Record::Begin { .. }))
    }

    fn each<'a, T>(&'a self, of: impl Fn(&'a Record) -> Option<T>) -> Vec<T> {
        self.lines.iter().filter_map(|line| of(&line.record)).collect()
    }

    pub fn checks(&self) -> Vec<&Check> {
        self.each(|record| if let Record::Check(check) = record { Some(check) } else { None })
    }

    fn figures(&self) -> Vec<&Figure> {
        self.each(|record| if let Record::Figure(figure) = record { Some(figure) } else { None })
    }

    fn skipped(&self) -> Vec<&String> {
        self.each(|record| if let Record::Skip { why } = record { Some(why) } else { None })
    }

    fn notes(&self) -> Vec<&String> {
        self.each(|record| if let Record::Note { text } = record { Some(text) } else { None })
    }

    fn machine(&self) -> Option<&Machine> {
        let machines =
            self.each(|record| if let Record::Machine(one) = record { Some(one) } else { None });
        machines.last().copied()
    }

    /// Whether every check passed, every target was reached, nothing was skipped, and no step
    /// that ended broke off.
    pub fn is_good(&self) -> bool {
        let checks = self.checks().iter().all(|check| check.error.is_none());
        let figures = self.figures().iter().all(|figure| figure.is_reached() != Some(false));
        let broke = |line: &Line| match line.record {
            Record::End { how, .. } => how != Ending::Done,
            _ => false,
        };
        checks && figures && self.skipped().is_empty() && !self.lines.iter().any(broke)
    }

    /// Writes `gpu.md` and `gpu.json`. `steps` are the names of all steps, in order.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, steps: &[&str]) -> Result<()> {
        let figure = |figure: &&Figure| {
            json!({
                "name": figure.name, "unit": figure.unit, "figure": figure.median(),
                "turns": figure.turns, "target": figure.target, "reached": figure.is_reached(),
            })
        };
        let ended = |name: &&str| json!({ "name": name, "ended": self.ending(name) });
        let json = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": self.machine(),
            "steps": steps.iter().map(ended).collect::<Vec<_>>(),
            "checks": self.checks(),
            "figures": self.figures().iter().map(figure).collect::<Vec<_>>(),
            "skipped": self.skipped(),
            "notes": self.notes(),
        });
        let json = serde_json::to_string_pretty(&json)? + "\n";
        for (name, text) in [("gpu.json", json), ("gpu.md", self.markdown(steps))] {
            let path = self.directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    pub fn markdown(&self, steps: &[&str]) -> String {
        let (judged, others): (Vec<_>, Vec<_>) =
            self.figures().into_iter().partition(|figure| figure.target.is_some());
        let is_reached = |figure: &&&Figure| figure.is_reached() == Some(true);
        let judgement = |figure: &&Figure| {
            let outcome = if is_reached(&figure) { "pass" } else { "FAIL" };
            [figure.row(), vec![outcome.to_owned()]].concat()
        };
        let rows: Vec<_> = judged.iter().map(judgement).collect();
        let explaining: Vec<_> = others.iter().map(|figure| figure.row()).collect();
        let mut text = format!(
            "# Loads onto a GPU, ringload {}\n\n{}\n{}\n{}\n{} of {} targets are reached.\n\n{}\n{}",
            env!("CARGO_PKG_VERSION"),
            self.machine().map(Machine::table).unwrap_or_default(),
            self.table_of_steps(steps),
            table_of_checks(&self.checks()),
            judged.iter().filter(is_reached).count(),
            judged.len(),
            markdown(&["to be reached", "target", "median", "turns", ""], &rows),
            markdown(&["what explains it", "median", "turns"], &explaining),
        );
        for (head, lines) in [("Notes", self.notes()), ("Not measured", self.skipped())] {
            if !lines.is_empty() {
                let lines: Vec<_> = lines.iter().map(|line| line.as_str()).collect();
                text += &format!("\n{head}:\n\n- {}\n", lines.join("\n- "));
            }
        }
        text
    }

    fn table_of_steps(&self, steps: &[&str]) -> String {
        let row = |name: &&str| {
            let end = self.of_step(name).find_map(|record| match record {
                Record::End { how, seconds, error } => Some((how, seconds, error)),
                _ => None,
            });
            let begun = if self.has_begun(name) { "stopped" } else { "not begun" };
            let (how, seconds) = match end {
                None => (begun.to_owned(), String::new()),
                Some((how, seconds, error)) => {
                    let how = match how {
                        Ending::Done => "done",
                        Ending::Failed => "FAIL",
                        Ending::OverItsLimit => "FAIL: over its time limit",
                        Ending::Cut => "cut off: the time of the run was over",
                    };
                    let error = error.as_ref().map(|error| format!(": {error}"));
                    (how.to_owned() + &error.unwrap_or_default(), format!("{seconds:.1}"))
                }
            };
            vec![(*name).to_owned(), seconds, how]
        };
        markdown(&["step", "seconds", ""], &steps.iter().map(row).collect::<Vec<_>>())
    }
}

pub fn table_of_checks(checks: &[&Check]) -> String {
    let row = |Check { name, cases, error }: &&Check| {
        let outcome = error.as_ref().map_or("pass".into(), |error| format!("FAIL: {error}"));
        vec![name.clone(), cases.to_string(), outcome]
    };
    markdown(&["check", "cases", ""], &checks.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
