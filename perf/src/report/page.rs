//! The page and the terminal's tables: two templates over the same content.
//!
//! The content of both is made here: the targets, and an article for each case, curve and timeline.
//! `page.html` and `terminal.txt` arrange it. The page is one self-contained file without scripts.

use crate::records::{Comparison, Noise, Record, Target, Trace};
use crate::report::plots::{self, Palette, Plot};
use crate::report::text::{self, NONE, digits};
use crate::report::timeline::Timeline;
use crate::results::{self, Case, Figure, Results, Scenario, Spread};
use anyhow::Result;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior, context, escape_formatter};
use ringload_measure::table::markdown;

/// A column of a table: its name, its figure, and the text of the figure.
type Column = (&'static str, Figure, fn(Spread) -> String);

/// The columns of a table; those without a figure of any client are left out.
const COLUMNS: [Column; 8] = [
    ("seconds", results::SECONDS, middle),
    ("lowest to highest", results::SECONDS, |it| {
        format!("{} to {}", digits(it.low), digits(it.high))
    }),
    ("GB/s", results::SPEED, middle),
    ("CPU-s/GB", results::CPU, middle),
    ("server CPU-s/GB", results::SERVER_CPU, middle),
    ("peak MiB", results::PEAK_MIB, middle),
    ("first tensor, s", results::FIRST, middle),
    ("last tensor, s", results::LAST, middle),
];

fn middle(spread: Spread) -> String {
    digits(spread.median)
}

/// The whole report as a page.
pub fn html(records: &[Record]) -> Result<String> {
    rendered(records, "page.html")
}

/// All records but timelines as tables for a terminal.
pub fn terminal(records: &[Record]) -> Result<String> {
    rendered(records, "terminal.txt")
}

fn rendered(records: &[Record], template: &str) -> Result<String> {
    let results = Results::of(records);
    let palette = Palette(results::clients(results.scenarios.iter().flat_map(|it| &it.cases)));
    let sections = results.scenarios.iter().map(|scenario| section(scenario, &palette));
    let content = context! {
        sessions => Serde(&results.sessions),
        targets => Serde(&results.targets),
        count => text::count(&results.targets),
        sections => sections.collect::<Result<Vec<_>>>()?,
    };
    Ok(environment()?.get_template(template)?.render(content)?)
}

/// The templates, and the filters that show records as texts.
pub fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_template("page.html", include_str!("page.html"))?;
    environment.add_template("style.css", include_str!("style.css"))?;
    environment.add_template("terminal.txt", include_str!("terminal.txt"))?;
    environment.add_filter("bytes", text::bytes);
    environment.add_filter("figure", |target: Serde<Target>| text::figure(&target.0));
    environment.add_filter("interval", |target: Serde<Target>| text::interval(&target.0));
    environment.add_filter("bound", |target: Serde<Target>| text::bound(&target.0));
    environment.add_filter("outcome", |target: Serde<Target>| text::outcome(&target.0));
    environment.add_filter("is_close", |target: Serde<Target>| target.0.is_close());
    environment.add_filter("comparison", |it: Serde<Comparison>| text::comparison(&it.0));
    environment.add_filter("noise", |noise: Serde<Noise>| text::noise(&noise.0));
    // Names come from records: none can be markup, or control the terminal.
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => {
            escape_formatter(out, state, &Value::from(text::without_controls(text)))
        }
        _ => escape_formatter(out, state, value),
    });
    Ok(environment)
}

fn section(scenario: &Scenario<'_>, palette: &Palette<'_>) -> Result<Value> {
    let curve = |case: &Case<'_>| case.point.map(|point| (point.curve.clone(), point.unit.clone()));
    let is_one =
        |case: &Case<'_>, next: &Case<'_>| case.point.is_some() && curve(case) == curve(next);
    let groups = scenario.cases.chunk_by(is_one);
    let cases = groups.map(|cases| cases_article(cases, palette));
    let traces = scenario.traces.iter().map(|trace| trace_article(trace));
    Ok(context! {
        name => scenario.name,
        articles => cases.chain(traces).collect::<Result<Vec<_>>>()?,
        noise => Serde(&scenario.noise),
        skipped => Serde(&scenario.skipped),
    })
}

/// A case, or the cases of a curve.
fn cases_article(cases: &[Case<'_>], palette: &Palette<'_>) -> Result<Value> {
    let point = cases[0].point;
    let compared = cases.iter().filter(|case| !case.comparisons.is_empty());
    let compared = compared.map(|case| (point.map(|_| case.title), &case.comparisons));
    let legend = results::clients(cases).into_iter();
    let legend = legend.map(|(name, role)| (palette.css(name, role), name)).collect::<Vec<_>>();
    let (first, last) = (cases[0].title, cases[cases.len() - 1].title);
    let plots = if point.is_some() {
        plots::curve(cases, palette)?
    } else {
        plots::bars(&cases[0], palette)?
    };
    Ok(context! {
        title => point.map_or(first.to_owned(), |point| format!("By {}", point.curve)),
        note => point.map(|_| format!("From: {first}. To: {last}.")),
        legend => Serde(point.map(|_| legend)),
        plots => Serde(plots),
        table => table(point.map(|point| point.unit.as_str()), cases, palette),
        comparisons => Serde(compared.collect::<Vec<_>>()),
        is_curve => point.is_some(),
    })
}

fn trace_article(trace: &Trace) -> Result<Value> {
    let Some(timeline) = Timeline::of(&trace.trace) else {
        let note = "This timeline has no events.";
        return Ok(context! { title => &trace.title, note, is_timeline => true });
    };
    Ok(context! {
        title => &trace.title,
        note => timeline.sentence(),
        legend => Serde(Timeline::legend()),
        plots => Serde([Plot { caption: "", svg: timeline.draw(&trace.title)? }]),
        is_timeline => true,
    })
}

/// The clients of a case, or of all points of a curve, which has a `unit`.
fn table(unit: Option<&str>, cases: &[Case<'_>], palette: &Palette<'_>) -> Value {
    let figures =
        COLUMNS.iter().filter(|(_, figure, _)| results::highest(cases, *figure).is_some());
    let figures: Vec<_> = figures.collect();
    let columns = ["client"].into_iter().chain(unit).chain(["runs"]);
    let columns: Vec<_> = columns.chain(figures.iter().map(|(name, ..)| *name)).collect();
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for (case, (client, role)) in
        cases.iter().flat_map(|case| results::clients([case]).into_iter().map(move |it| (case, it)))
    {
        let at = case.point.map(|point| text::trimmed(&format!("{:.6}", point.x)).to_owned());
        let figures =
            figures.iter().map(|(_, figure, shown)| case.spread(client, *figure).map(shown));
        let figures = figures.map(|figure| figure.unwrap_or_else(|| NONE.to_owned()));
        let runs = case.measured.runs(client).len().to_string();
        let cells: Vec<String> = at.into_iter().chain([runs]).chain(figures).collect();
        lines.push([vec![text::without_controls(client)], cells.clone()].concat());
        rows.push(
            context! { client, role => Serde(role), colour => palette.css(client, role), cells },
        );
    }
    context! { text => markdown(&columns, &lines), columns => Serde(columns), rows }
}
