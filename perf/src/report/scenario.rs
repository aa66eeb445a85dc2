//! A scenario on the page: its cases, its curves, its timelines, its noise.

use crate::records::{Role, Trace};
use crate::report::bars::{self, Plot};
use crate::report::curves::{self, point_name};
use crate::report::data::{Curve, Measured, Scenario};
use crate::report::palette::Palette;
use crate::report::svg::swatch;
use crate::report::tables::{self, Row, Table};
use crate::report::text::{self, escaped};
use crate::report::timeline;
use crate::report::trace::{Kind, Timeline};
use crate::stats::Difference;

/// `id` is the target of links on the page.
pub fn section(scenario: &Scenario<'_>, palette: &Palette<'_>, id: &str) -> String {
    let mut out = format!("<section id=\"{id}\">\n<h2>{}</h2>\n", escaped(scenario.name));
    for case in scenario.single() {
        out.push_str(&case_html(case, palette));
    }
    for curve in scenario.curves() {
        out.push_str(&curve_html(&curve, palette));
    }
    for trace in &scenario.traces {
        out.push_str(&trace_html(trace));
    }
    for noise in &scenario.noise {
        let noise = escaped(&text::noise(noise));
        out.push_str(&format!("<p class=\"noise\"><b>Noise:</b> {noise}.</p>\n"));
    }
    if !scenario.skipped.is_empty() {
        out.push_str("<h3>Not measured</h3>\n<ul>\n");
        for skipped in &scenario.skipped {
            let (what, why) = (escaped(&skipped.what), escaped(&skipped.why));
            out.push_str(&format!("<li>{what}: {why}</li>\n"));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</section>\n");
    out
}

fn case_html(case: &Measured<'_>, palette: &Palette<'_>) -> String {
    format!(
        "<article>\n<h3>{}</h3>\n{}{}{}</article>\n",
        escaped(case.title),
        plots_html(bars::plots(case, palette)),
        table_html(&tables::clients(case), palette),
        comparisons_html(case)
    )
}

fn curve_html(curve: &Curve<'_, '_>, palette: &Palette<'_>) -> String {
    let point = |x| point_name(curve, x);
    let mut titles: Vec<&str> = curve.points.iter().map(|(_, case)| case.title).collect();
    titles.dedup();
    let titles = match titles[..] {
        [] | [_] => titles.concat(),
        [first, .., last] => format!("{first} \u{2026} {last}"),
    };
    let mut out = format!(
        "<article>\n<h3>By {}</h3>\n<p class=\"note\">{}</p>\n",
        escaped(curve.name),
        escaped(&titles)
    );
    out.push_str(&legend(curve, palette));
    out.push_str(&plots_html(curves::plots(curve, palette)));
    out.push_str("<details><summary>The figures of every point</summary>\n");
    out.push_str(&table_html(&tables::curve(curve, point), palette));
    for (x, case) in curve.points.iter().filter(|(_, case)| !case.comparisons.is_empty()) {
        out.push_str(&format!("<h4>{}</h4>\n", escaped(&point(*x))));
        out.push_str(&comparisons_html(case));
    }
    out.push_str("</details>\n</article>\n");
    out
}

fn legend(curve: &Curve<'_, '_>, palette: &Palette<'_>) -> String {
    let mut out = "<p class=\"legend\">".to_owned();
    for (client, _) in curve.clients() {
        let swatch = swatch(&palette.style(client));
        out.push_str(&format!("<span>{swatch} {}</span>\n", escaped(client)));
    }
    out.push_str("</p>\n");
    out
}

fn plots_html(plots: Vec<Plot>) -> String {
    if plots.is_empty() {
        return "<p class=\"note\">Nothing was measured.</p>\n".to_owned();
    }
    let mut out = "<div class=\"plots\">\n".to_owned();
    for Plot { caption, svg } in plots {
        let caption = escaped(&caption);
        out.push_str(&format!("<figure><figcaption>{caption}</figcaption>\n{svg}</figure>\n"));
    }
    out.push_str("</div>\n");
    out
}

fn table_html(table: &Table, palette: &Palette<'_>) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let mut out = "<div class=\"scroll\"><table>\n<thead><tr>".to_owned();
    for column in &table.columns {
        let class = if column.is_figure { " class=\"figure\"" } else { "" };
        out.push_str(&format!("<th scope=\"col\"{class}>{}</th>", column.name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str(&row_html(row, palette));
    }
    out.push_str("</tbody></table></div>\n");
    out
}

fn row_html(row: &Row, palette: &Palette<'_>) -> String {
    let style = palette.style(&row.client);
    let role = match tables::role(row.role) {
        "" => String::new(),
        role => format!(" <span class=\"role\">{role}</span>"),
    };
    let class = if row.role == Role::Own { " class=\"strong\"" } else { "" };
    let mut out = format!(
        "<tr{class}><th scope=\"row\"><span class=\"dot back {}\"></span>{}{role}</th>",
        style.class,
        escaped(&row.client)
    );
    for cell in row.cells.iter().skip(1) {
        out.push_str(&format!("<td class=\"figure\">{}</td>", escaped(cell)));
    }
    out.push_str("</tr>\n");
    out
}

fn comparisons_html(case: &Measured<'_>) -> String {
    if case.comparisons.is_empty() {
        return String::new();
    }
    let mut out = "<ul class=\"comparisons\">\n".to_owned();
    for comparison in &case.comparisons {
        let other = case.clients.iter().find(|client| client.name == comparison.other);
        let is_limit = other.is_some_and(|client| client.role == Role::Limit);
        let class = match comparison.difference {
            Difference::Less => "less",
            // Nobody is expected to be faster than a limit.
            Difference::More if is_limit => "more expected",
            Difference::More => "more",
            Difference::WithinNoise => "same",
        };
        let sentence = escaped(&text::comparison(comparison));
        out.push_str(&format!("<li class=\"{class}\">{sentence}</li>\n"));
    }
    out.push_str("</ul>\n");
    out
}

fn trace_html(trace: &Trace) -> String {
    let title = escaped(&trace.title);
    let picture = Timeline::of(&trace.trace)
        .and_then(|it| Some((timeline::sentence(&it), timeline::draw(&it, &trace.title)?)));
    let Some((sentence, svg)) = picture else {
        return format!(
            "<article>\n<h3>{title}</h3>\n<p class=\"note\">This timeline has no events.</p>\n</article>\n"
        );
    };
    let mut legend = "<p class=\"legend\">".to_owned();
    for kind in Kind::ALL {
        let (class, name) = (kind.class(), kind.name());
        legend.push_str(&format!("<span><span class=\"dot {class}\"></span>{name}</span>\n"));
    }
    format!(
        "<article>\n<h3>{title}</h3>\n<p>{}</p>\n{legend}</p>\n<div class=\"scroll\">{svg}</div>\n</article>\n",
        escaped(&sentence)
    )
}
