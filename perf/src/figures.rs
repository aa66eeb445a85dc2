//! The figures of README.md and docs/: blocks of text that are written from the records.
//!
//! `perf/figures.md` has the text of each block as a template. Its variables are the records:
//!
//! ```text
//! figures["SCENARIO/CASE: CLIENT"]   the figures of a client, each with low, median and high
//! titles["SCENARIO/CASE"], target["ID"], targets, sessions
//! gpu["FIGURE"]                     a figure of `gpu.sh run`, with low, median, high and turns
//! ```
//!
//! Of the lines `=== PAGE NAME`, each begins the text of the block `<!-- NAME -->` of a page. A name
//! that the records do not have is an error, so that no figure can be left over from earlier records.

use crate::blocks::{self, Block};
use crate::records::Record;
use crate::report;
use crate::results::{self, Results};
use anyhow::{Context as _, Result, ensure};
use minijinja::value::{Serde, Value};
use minijinja::{UndefinedBehavior, context};
use ringload_measure::stats::median;
use ringload_measure::table::number;
use std::collections::BTreeMap;
use std::path::Path;

const TEMPLATES: &str = include_str!("../figures.md");
/// The records that the figures come from.
const RECORDS: &str = "perf/results/2026-11-22-2-cores.jsonl";
/// Those of the emulated stores and slow mounts: `stores` in perf/figures.md.
const STORES: &str = "perf/results/2026-11-27-stores.jsonl";
/// Those of a GPU, the last ones first, each of a version and a machine of its own: `gpu`, `gpu_before`
/// and `gpu_first` in perf/figures.md. None of the runs reached all steps.
const GPUS: [&str; 3] = [
    "perf/results/2026-11-28-h200.jsonl",
    "perf/results/2026-11-27-h200.jsonl",
    "perf/results/2026-11-27-h200-before.jsonl",
];

/// What to do with the blocks.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write them, and the page of the records; otherwise it is an error if they differ
    #[arg(long)]
    write: bool,
}

/// Compares the blocks with the records, or writes them.
pub fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let records = results::read(&root.join(RECORDS))?;
    let stores = results::read(&root.join(STORES))?;
    let gpu = |path| std::fs::read_to_string(root.join(path)).context(path);
    let gpus = [gpu(GPUS[0])?, gpu(GPUS[1])?, gpu(GPUS[2])?].map(|records| gpu_figures(&records));
    for (page, blocks) in pages(&records, &stores, gpus)? {
        if args.write {
            blocks::rewrite(&root.join(page), &blocks)?;
        }
        let stale = blocks::stale(&root.join(page), &blocks)?;
        ensure!(
            stale.is_empty(),
            "{page} differs from the records and perf/figures.md in {stale:?}; \
             run cargo run -p ringload-perf -- figures --write"
        );
    }
    if args.write {
        report::render(&root.join(RECORDS))?;
        report::render(&root.join(STORES))?;
    }
    Ok(())
}

/// The blocks of each page.
fn pages(
    records: &[Record],
    stores: &[Record],
    [gpu, gpu_before, gpu_first]: [Value; 3],
) -> Result<BTreeMap<&'static str, Vec<Block>>> {
    let mut environment = report::environment()?;
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("short", short);
    environment.add_filter("memory", memory);
    let stores = content(&Results::of(stores));
    let content = context! { stores, gpu, gpu_before, gpu_first, ..content(&Results::of(records)) };
    let mut texts = TEMPLATES.split("\n=== ");
    let common = texts.next().unwrap_or_default();
    let mut pages: BTreeMap<&str, Vec<Block>> = BTreeMap::new();
    for text in texts {
        let parts =
            text.split_once('\n').and_then(|(head, text)| Some((head.split_once(' ')?, text)));
        let ((page, name), text) = parts.context("a block of perf/figures.md has no name")?;
        let text = environment
            .render_str(&format!("{common}\n{text}"), content.clone())
            .with_context(|| format!("the block {name} of perf/figures.md"))?;
        pages.entry(page).or_default().push((name, format!("{}\n", text.trim())));
    }
    Ok(pages)
}

/// The figures among the records of `gpu.sh run`, by name; of two of one name the one with more turns.
fn gpu_figures(records: &str) -> Value {
    #[derive(serde::Deserialize)]
    struct Figure {
        name: String,
        turns: Vec<f64>,
    }
    let figures = records.lines().filter_map(|line| serde_json::from_str::<Figure>(line).ok());
    let mut longest: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for Figure { name, turns } in figures {
        let known = longest.entry(name).or_default();
        if turns.len() >= known.len() {
            *known = turns;
        }
    }
    let spread = |(name, turns): (String, Vec<f64>)| {
        let ends = [f64::min, f64::max].map(|end| turns.iter().copied().reduce(end));
        let (median, count) = (median(&turns), turns.len());
        let figure = context! { median, low => ends[0], high => ends[1], turns => count };
        (name, figure)
    };
    longest.into_iter().map(spread).collect::<BTreeMap<_, _>>().into()
}

fn content(results: &Results<'_>) -> Value {
    let (mut figures, mut titles) = (BTreeMap::new(), BTreeMap::new());
    for (scenario, case) in
        results.scenarios.iter().flat_map(|it| it.cases.iter().map(move |case| (it, case)))
    {
        let name = format!("{}/{}", scenario.name, case.name);
        for (client, _) in results::clients([case]) {
            let of = |figure| Serde(case.spread(client, figure));
            let figures_of_client = context! {
                seconds => of(results::SECONDS),
                cpu => of(results::CPU),
                peak => of(results::PEAK_MIB),
                last => of(results::LAST),
                gigabytes => of(|run| Some(run.gigabytes())),
                runs => case.measured.runs(client).len(),
            };
            figures.insert(format!("{name}: {client}"), figures_of_client);
        }
        titles.insert(name, case.title);
    }
    let target: BTreeMap<_, _> = results.targets.iter().map(|it| (it.id.as_str(), *it)).collect();
    context! {
        figures,
        titles => Serde(titles),
        target => Serde(target),
        targets => Serde(&results.targets),
        sessions => Serde(&results.sessions),
    }
}

/// At least two decimals and two significant digits, as 1.53, 0.49, 0.030 and 0.0038.
fn short(figure: f64) -> String {
    match figure.abs() {
        1.0.. => number(figure),
        0.095.. | 0.0 => format!("{figure:.2}"),
        small => format!("{figure:.0$}", (1.0 - small.log10().floor()) as usize),
    }
}

fn memory(mebibytes: f64) -> String {
    match mebibytes {
        1024.0.. => format!("{:.1} GiB", mebibytes / 1024.0),
        // A difference may be -0.4.
        _ => format!("{:.0} MiB", mebibytes.round() + 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_documents_are_those_of_the_records() {
        run(&Args { write: false }).unwrap();
    }

    #[test]
    fn a_figure_that_the_records_do_not_have_is_an_error() {
        let error = format!("{:#}", pages(&[], &[], [""; 3].map(gpu_figures)).unwrap_err());
        assert!(error.contains("perf/figures.md"), "{error}");
    }

    #[test]
    fn figures_are_short() {
        let figures = [1.529, 0.4946, 0.0996, 0.0304, 0.0038, 0.0, 12.34, -0.0164];
        let texts = ["1.53", "0.49", "0.10", "0.030", "0.0038", "0.00", "12.3", "-0.016"];
        assert_eq!(figures.map(short), texts);
        assert_eq!([544.2, 4111.0, -0.4].map(memory), ["544 MiB", "4.0 GiB", "0 MiB"]);
    }
}
