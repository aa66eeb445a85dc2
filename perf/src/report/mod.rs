//! The report of the measurements: an HTML page with plots, and tables on the terminal.
//!
//! Both are made from the records alone, so that a file of records can be rendered again at any time.
//!
//! ```text
//! results ─┬─ plots, timeline (plotters) ─┬─ page ─ page.html, terminal.txt (minijinja)
//!          └─ text ───────────────────────┘
//! ```
//!
//! Plots are inline SVG, so the page needs no scripts and no network.

mod page;
mod plots;

#[cfg(test)]
mod tests;
mod text;
mod timeline;

use crate::results::read;
use anyhow::Context as _;
use std::path::{Path, PathBuf};

pub use page::{environment, html, terminal};

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
