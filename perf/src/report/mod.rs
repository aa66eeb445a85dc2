//! The report of the measurements: an HTML page with plots, and tables on the terminal.
//!
//! Both are made from the records alone, so that a file of records can be rendered again at any time.
//!
//! ```text
//! records ─ data ─┬─ tables ─┬─ terminal
//!                 │          │
//!                 └─ plots ──┴─ page        plots: bars, curves, timeline (of a trace)
//! ```
//!
//! Plots are inline SVG, written by a small writer (`svg`, `scale`) instead of a plotting crate. Their
//! colours are classes of the page's style sheet, so that one file works in light and dark mode, a
//! client has the same colour everywhere, and nothing has to be downloaded.

mod bars;
mod curves;
mod data;
mod page;
mod palette;
#[cfg(test)]
mod sample;
mod scale;
mod scenario;
mod svg;
mod tables;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
mod trace;

use crate::records::Record;
use anyhow::Context as _;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

pub use page::html;
pub use terminal::terminal;

/// The records of a file, one JSON object a line.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in std::io::BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let record = serde_json::from_str(&line).with_context(|| {
            format!(
                "line {} of {} is not a record of a measurement; remove it, or measure again",
                index + 1,
                path.display()
            )
        })?;
        records.push(record);
    }
    Ok(records)
}

/// Writes the page for a file of records and returns its path: `FILE.html` for `FILE.jsonl`.
pub fn render(path: &Path) -> anyhow::Result<PathBuf> {
    let page = path.with_extension("html");
    anyhow::ensure!(
        page != path,
        "{} is where its own page would be written; name a file of records, as FILE.jsonl",
        path.display()
    );
    let records = read(path)?;
    std::fs::write(&page, html(&records))
        .with_context(|| format!("cannot write {}", page.display()))?;
    Ok(page)
}
