//! The tables on a terminal: the cases in order, then the targets.

use crate::records::{Record, Session};
use crate::report::curves::point_name;
use crate::report::data::{Measured, Report, Scenario};
use crate::report::tables::{self, Table};
use crate::report::text::{self, plain};
use std::io::{self, Write};

/// Writes all records except timelines, which are not tables.
pub fn terminal(records: &[Record], out: &mut dyn Write) -> io::Result<()> {
    let report = Report::of(records);
    for session in &report.sessions {
        write_session(session, out)?;
    }
    for scenario in &report.scenarios {
        write_scenario(scenario, out)?;
    }
    write_targets(&report, out)
}

fn write_session(session: &Session, out: &mut dyn Write) -> io::Result<()> {
    let commit = session.commit.as_deref().map(|commit| format!(" ({commit})"));
    let line = format!(
        "ringload {}{}, {}: {} cores of {}, {}, Linux {}, {}",
        session.version,
        commit.unwrap_or_default(),
        session.date,
        session.machine.cores,
        session.machine.cpu,
        text::bytes(session.machine.memory_bytes as f64),
        session.machine.kernel,
        session.machine.file_system,
    );
    writeln!(out, "{}", plain(&line))
}

fn write_scenario(scenario: &Scenario<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n== {}", plain(scenario.name))?;
    for case in scenario.single() {
        writeln!(out, "\n{}", plain(case.title))?;
        write_table(&tables::clients(case), out)?;
        write_comparisons(case, out)?;
    }
    for curve in scenario.curves() {
        writeln!(out, "\nBy {}", plain(curve.name))?;
        write_table(&tables::curve(&curve, |x| point_name(&curve, x)), out)?;
        for (x, case) in &curve.points {
            if !case.comparisons.is_empty() {
                writeln!(out, "  {}:", plain(&point_name(&curve, *x)))?;
            }
            write_comparisons(case, out)?;
        }
    }
    for noise in &scenario.noise {
        writeln!(out, "\nNoise: {}", plain(&text::noise(noise)))?;
    }
    for skipped in &scenario.skipped {
        writeln!(out, "Not measured: {}: {}", plain(&skipped.what), plain(&skipped.why))?;
    }
    Ok(())
}

fn write_comparisons(case: &Measured<'_>, out: &mut dyn Write) -> io::Result<()> {
    for comparison in &case.comparisons {
        writeln!(out, "  {}", plain(&text::comparison(comparison)))?;
    }
    Ok(())
}

fn write_targets(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    if report.targets.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n== Targets")?;
    for (part, targets) in tables::parts(&report.targets) {
        writeln!(out, "\n{}", plain(part))?;
        let outcome = |cells: &[String; 4]| cells[3].chars().count();
        let cells: Vec<[String; 4]> = targets.iter().map(|it| tables::target(it)).collect();
        let width = cells.iter().map(outcome).max().unwrap_or(0);
        for (target, [sentence, figure, bound, outcome]) in targets.iter().zip(&cells) {
            let line = format!("  {outcome:width$}  {sentence}: {figure}, {bound}");
            writeln!(out, "{}", plain(&line))?;
            if let Some(note) = &target.note {
                writeln!(out, "  {:width$}  {}", "", plain(note))?;
            }
        }
    }
    writeln!(out, "\n{}", text::count(&report.targets))
}

/// Columns as wide as their widest cell, figures to the right.
fn write_table(table: &Table, out: &mut dyn Write) -> io::Result<()> {
    let rows = || table.rows.iter().map(|row| &row.cells);
    let width = |index: usize| {
        let cells = rows().filter_map(|cells| cells.get(index)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(table.columns[index].name.chars().count())
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, column), width) in cells.zip(&table.columns).zip(&widths) {
            let cell = plain(cell);
            line.push_str("  ");
            line.push_str(&match column.is_figure {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            });
        }
        line.trim_end().to_owned()
    };
    writeln!(out, "{}", line(&mut table.columns.iter().map(|column| column.name)))?;
    for cells in rows() {
        writeln!(out, "{}", line(&mut cells.iter().map(String::as_str)))?;
    }
    Ok(())
}
