//! The plots of cases and curves, drawn by `plotters` as inline SVG.
//!
//! A case has horizontal bars, one below the other: each ends at the median, a thin line goes from the
//! lowest to the highest run, and the value of a limit continues as a line through all bars. A curve
//! has a line for each client through its medians; its horizontal axis is logarithmic.
//!
//! Colours are those of the light mode; the style sheet inverts the pictures for the dark mode.

use crate::records::Role;
use crate::report::text::{digits, trimmed, without_controls};
use crate::results::{self, Case, Figure, Spread};
use anyhow::Result;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;
use std::ops::Range;

pub const INK: RGBColor = rgb(0x1c2128);
const SOFT: RGBColor = rgb(0x5b6470);
const GRID: RGBColor = rgb(0xe2e6eb);
const OWN: RGBColor = rgb(0x0b5fd6);
const LIMIT: RGBColor = rgb(0x7d8590);
/// Paul Tol's "muted" scheme, which colour-blind readers can distinguish, a little darker.
const PEERS: [u32; 8] =
    [0xbf7a00, 0x2f9080, 0xcc6677, 0x7d7a22, 0xaa4499, 0x882255, 0x117733, 0xb8552b];

/// The size of texts for `plotters`; in the picture it is divided by 1.24, which gives 12.9 pixels.
const FONT: f64 = 16.0;
const WIDTH: u32 = 420;
const ROW: u32 = 36;
/// Smaller loads are shown by their time instead of their throughput.
const SMALL_BYTES: f64 = 256e6;

/// A plot and its caption.
#[derive(Serialize)]
pub struct Plot {
    pub caption: &'static str,
    pub svg: String,
}

pub const fn rgb(hexadecimal: u32) -> RGBColor {
    let [_, red, green, blue] = hexadecimal.to_be_bytes();
    RGBColor(red, green, blue)
}

/// One colour for each client in the whole report: ringload's is strong, limits are grey.
pub struct Palette<'a>(pub Vec<(&'a str, Role)>);

impl Palette<'_> {
    fn colour(&self, client: &str, role: Role) -> RGBAColor {
        let mut peers = self.0.iter().filter(|(_, role)| *role == Role::Peer);
        let peer = peers.position(|(peer, _)| *peer == client).unwrap_or(0);
        match role {
            Role::Own => OWN.mix(1.0),
            Role::Control => OWN.mix(0.5),
            Role::Peer => rgb(PEERS[peer % PEERS.len()]).mix(0.9),
            Role::Limit => LIMIT.mix(0.7),
        }
    }

    /// The colour for a style sheet.
    pub fn css(&self, client: &str, role: Role) -> String {
        css(self.colour(client, role))
    }
}

pub fn css(RGBAColor(red, green, blue, alpha): RGBAColor) -> String {
    format!("rgb({red} {green} {blue} / {alpha})")
}

/// Caption, unit and figure of a plot.
type Panel = (&'static str, &'static str, Figure);

const TIME: Panel = ("Time, less is better", "s", results::SECONDS);
const GROWTH: Panel = ("Time; thin grey line: in proportion to the work", "s", results::SECONDS);
const SPEED: Panel = ("Throughput, more is better", "GB/s", results::SPEED);
const CPU: Panel = ("CPU time per GB, less is better", "CPU-s/GB", results::CPU);
const TENSORS: Panel =
    ("From process start to the first tensor (line) and the last", "s", results::LAST);

/// The plots of a case; none if nothing was measured.
pub fn bars(case: &Case<'_>, palette: &Palette<'_>) -> Result<Vec<Plot>> {
    let highest = |figure| results::highest(std::slice::from_ref(case), figure);
    let is_small = highest(results::BYTES).is_some_and(|bytes| bytes < SMALL_BYTES);
    let main = if is_small || highest(results::LAST).is_some() { TIME } else { SPEED };
    let panels = [main, TENSORS, CPU].into_iter();
    let panels = panels.filter_map(|panel| Some((panel, highest(panel.2)?)));
    panels.map(|(panel, highest)| case_plot(case, palette, panel, highest)).collect()
}

fn case_plot(
    case: &Case<'_>,
    palette: &Palette<'_>,
    (caption, unit, figure): Panel,
    highest: f64,
) -> Result<Plot> {
    let bars = results::clients([case]).into_iter();
    let bars = bars.filter_map(|(client, role)| Some((client, role, case.spread(client, figure)?)));
    let bars: Vec<_> = bars.collect();
    let count = bars.len() as f64;
    let draw = |chart: &mut Chart<'_, '_>| {
        let limits = bars.iter().filter(|(_, role, _)| *role == Role::Limit);
        let lines = limits.map(|(_, _, it)| [(it.median, 0.0), (it.median, count)]);
        chart.draw_series(lines.map(|line| PathElement::new(line, LIMIT.mix(0.5))))?;
        for (index, (client, role, Spread { low, median, high })) in bars.iter().enumerate() {
            let bottom = count - index as f64 - 0.95;
            let (middle, top) = (bottom + 0.22, bottom + 0.44);
            let fill = palette.colour(client, *role).filled();
            chart.draw_series([Rectangle::new([(0.0, bottom), (*median, top)], fill)])?;
            if let Some(first) =
                case.spread(client, results::FIRST).filter(|_| caption == TENSORS.0)
            {
                let line = [(first.median, bottom), (first.median, top)];
                chart.draw_series([PathElement::new(line, WHITE.stroke_width(3))])?;
            }
            chart.draw_series([ErrorBar::new_horizontal(middle, *low, *median, *high, INK, 6)])?;
            let mut style = text(INK, HPos::Left, VPos::Center);
            let behind = (high + highest * 0.02, middle);
            let figure = Text::new(digits(*median), behind, style.clone());
            if *role == Role::Own {
                style.font = style.font.style(FontStyle::Bold);
            }
            let name: String = without_controls(client).chars().take(56).collect();
            chart.draw_series([figure, Text::new(name, (0.0, bottom + 0.72), style)])?;
        }
        Ok(())
    };
    // The last part of the width is for the figures behind the bars.
    let axes = [(Axis::to(highest * 1.2), unit), (Axis { ticks: vec![], ..Axis::to(count) }, "")];
    let label = format!("{}: {caption}", case.title);
    let svg = picture(&label, (WIDTH, ROW * bars.len() as u32 + 62), axes, &[], draw)?;
    Ok(Plot { caption, svg })
}

/// The plots of a curve, whose cases have points.
pub fn curve(cases: &[Case<'_>], palette: &Palette<'_>) -> Result<Vec<Plot>> {
    // Where the last point loads more than the first one, the time should grow.
    let bytes = |end: usize| results::highest(&cases[end..=end], results::BYTES).unwrap_or(0.0);
    let is_growth = bytes(0) > 0.0 && bytes(cases.len() - 1) >= 2.0 * bytes(0);
    let panels = if is_growth { &[GROWTH, SPEED, CPU][..] } else { &[SPEED, CPU] };
    let panels =
        panels.iter().filter_map(|panel| Some((*panel, results::highest(cases, panel.2)?)));
    panels.map(|(panel, highest)| curve_plot(cases, palette, panel, highest)).collect()
}

fn curve_plot(
    cases: &[Case<'_>],
    palette: &Palette<'_>,
    (caption, unit, figure): Panel,
    highest: f64,
) -> Result<Plot> {
    let line = |client| {
        let points =
            cases.iter().filter_map(|case| Some((case.point?.x, case.spread(client, figure)?)));
        points.collect::<Vec<_>>()
    };
    let lines = results::clients(cases).into_iter().map(|it| (it, line(it.0)));
    let lines: Vec<_> = lines.filter(|(_, points)| !points.is_empty()).collect();
    let points = || lines.iter().flat_map(|(_, points)| points);
    let lowest = points().map(|(_, spread)| spread.low).fold(highest, f64::min).max(1e-9);
    let is_growth = caption == GROWTH.0;
    let powers = (-9..=9).flat_map(|power| [1.0, 2.0, 5.0].map(|it| it * 10_f64.powi(power)));
    let y = match is_growth {
        true => Axis::log(lowest, highest, powers, 8),
        false => Axis::to(highest * 1.1),
    };
    let mut at: Vec<f64> = points().map(|(x, _)| *x).collect();
    at.sort_by(f64::total_cmp);
    let x = Axis::log(at[0], at[at.len() - 1], at, 16);
    let draw = |chart: &mut Chart<'_, '_>| {
        if let (true, Some((_, points))) = (is_growth, lines.first()) {
            let (far, spread) = points[points.len() - 1];
            let start = points[0].0.max(far * lowest / spread.median);
            let line = [start, far].map(|x| (x, spread.median * x / far));
            chart.draw_series([PathElement::new(line, SOFT)])?;
        }
        // ringload last, so that nothing covers it.
        for ((client, role), points) in lines.iter().rev() {
            let style = palette.colour(client, *role).stroke_width(2);
            let medians: Vec<_> = points.iter().map(|(x, it)| (*x, it.median)).collect();
            chart.draw_series([PathElement::new(medians, style)])?;
            chart.draw_series(points.iter().map(|(x, Spread { low, median, high })| {
                ErrorBar::new_vertical(*x, *low, *median, *high, style.filled(), 6)
            }))?;
        }
        Ok(())
    };
    let name = cases[0].point.map(|point| format!("{}, {}", point.curve, point.unit));
    let name = name.unwrap_or_default();
    let axes = [(x, name.as_str()), (y, unit)];
    let svg = picture(&format!("{caption} by {name}"), (WIDTH, 290), axes, &[], draw)?;
    Ok(Plot { caption, svg })
}

/// An axis: the figures at its ends, and its ticks.
#[derive(Clone)]
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    pub is_log: bool,
}

impl Axis {
    /// From zero.
    pub fn to(high: f64) -> Self {
        let high = high.max(1e-9);
        let ticks = RangedCoordf64::from(0.0..high).key_points(6);
        Self { low: 0.0, high, ticks, is_log: false }
    }

    /// Logarithmic, without the ticks outside, and those within some percent of the axis after another.
    fn log(low: f64, high: f64, ticks: impl IntoIterator<Item = f64>, percent: i32) -> Self {
        let (low, high) = (low.max(1e-9) / 1.2, high.max(1e-9) * 1.2);
        let (mut axis, mut free_from) = (Self { low, high, ticks: vec![], is_log: true }, 0);
        for tick in ticks.into_iter().filter(|tick| (low..=high).contains(tick)) {
            let at = axis.map(&tick, (0, 100));
            if at >= free_from {
                axis.ticks.push(tick);
                free_from = at + percent;
            }
        }
        axis
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, figure: &f64, (start, end): (i32, i32)) -> i32 {
        let at = |figure: f64| if self.is_log { figure.max(1e-9).ln() } else { figure };
        let share = (at(*figure) - at(self.low)) / (at(self.high) - at(self.low));
        start + (share.clamp(0.0, 1.0) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

pub type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// A picture of this size, in whose frame `draw` draws; `label` is for screen readers. The axes have
/// names, and the lanes of the vertical axis, too, if there are some.
pub fn picture(
    label: &str,
    size: (u32, u32),
    [(x, x_name), (y, y_name)]: [(Axis, &str); 2],
    lanes: &[String],
    draw: impl FnOnce(&mut Chart<'_, '_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let left = if y.ticks.is_empty() { 0 } else { 66 };
    let number = |figure: &f64| trimmed(&format!("{figure:.6}")).to_owned();
    let lane = |at: &f64| lanes.get(*at as usize).cloned().unwrap_or_else(|| number(at));
    let mut builder = ChartBuilder::on(&area);
    builder.margin(8).margin_right(24).x_label_area_size(46).y_label_area_size(left);
    let mut chart = builder.build_cartesian_2d(x, y)?;
    let soft = text(SOFT, HPos::Center, VPos::Top);
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID).light_line_style(TRANSPARENT).axis_style(LIMIT);
    mesh.x_label_formatter(&number).y_label_formatter(&lane).x_desc(x_name).y_desc(y_name);
    mesh.label_style(soft.clone()).axis_desc_style(soft);
    if left == 0 {
        mesh.disable_y_mesh().disable_y_axis();
    }
    mesh.draw()?;
    draw(&mut chart)?;
    drop(chart);
    area.present()?;
    drop(area);
    let label = minijinja::HtmlEscape(label);
    // The attributes that are left out have these values anyway.
    let svg = svg.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "");
    Ok(svg.replacen("<svg", &format!("<svg role=\"img\" aria-label=\"{label}\""), 1))
}

/// A text style: colour, and which point of the text its position is.
fn text(colour: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    let style = TextStyle::from(("sans-serif", FONT).into_font());
    TextStyle { color: colour.to_backend_color(), ..style }.pos(Pos::new(horizontal, vertical))
}
