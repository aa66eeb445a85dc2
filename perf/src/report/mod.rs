//! The report of the measurements: an HTML page with plots, and tables on the terminal.
//!
//! Both are made from the records alone, so that a file of records can be rendered again at any time.
//!
//! ```text
//! records ─ data ─┬─ plots, timeline (plotters) ─┬─ page ─ page.html, terminal.txt (minijinja)
//!                 └─ text ───────────────────────┘
//! ```
//!
//! Plots are inline SVG, so the page needs no scripts and no network.

pub mod data;
mod page;
mod plots;

#[cfg(test)]
mod tests;
mod text;
mod timeline;

use crate::records::Record;
use anyhow::Context as _;
use std::path::{Path, PathBuf};

pub use data::Report;
pub use page::{environment, html, terminal};

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

/// Writes the page for a file of records and returns its path: `FILE.html` for `FILE.jsonl`.
pub fn render(path: &Path) -> anyhow::Result<PathBuf> {
    let page = path.with_extension("html");
    anyhow::ensure!(
        page != path,
        "{} is where its own page would be written; name a file of records, as FILE.jsonl",
        path.display()
    );
    std::fs::write(&page, html(&read(path)?)?)
        .with_context(|| format!("cannot write {}", page.display()))?;
    Ok(page)
}
