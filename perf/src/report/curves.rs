//! Plots of scaling curves: one line per client over the points of a curve.
//!
//! Points are medians; thin lines through them go from the lowest to the highest run. If the points
//! load different numbers of bytes, a first panel shows seconds on logarithmic axes, with a dashed
//! line for proportional growth.

use crate::records::Role;
use crate::report::bars::Plot;
use crate::report::data::{Client, Curve, Spread};
use crate::report::palette::{Palette, Style};
use crate::report::scale::{Kind, Scale};
use crate::report::svg::{FONT_PIXELS, Svg, pixels, text_width};
use crate::report::text::{bytes, digits, trimmed};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const TOP: f64 = 12.0;
/// The height below the plot, for the numbers of the ticks and the name of the axis.
const BOTTOM: f64 = 46.0;
const RIGHT: f64 = 24.0;

/// An axis whose highest figure exceeds its lowest by this factor is logarithmic.
const WIDE: f64 = 8.0;

struct Line<'a> {
    client: &'a str,
    role: Role,
    style: Style,
    points: Vec<(f64, Spread)>,
}

struct Panel<'a> {
    caption: String,
    unit: &'a str,
    /// Whether the figures are logarithmic, too, with the line of proportional growth.
    is_growth: bool,
    lines: Vec<Line<'a>>,
}

/// The axes of a panel.
struct Axes {
    x: Scale,
    y: Scale,
    bottom: f64,
}

pub fn plots(curve: &Curve<'_, '_>, palette: &Palette<'_>) -> Vec<Plot> {
    let panel = |caption: &str, unit, is_growth, figure: fn(&Client<'_>) -> Option<Spread>| {
        let line = |(client, role)| {
            let points = curve.line(client, figure);
            Line { client, role, style: palette.style(client), points }
        };
        let lines = curve.clients().into_iter().map(line).filter(|it| !it.points.is_empty());
        draw(curve, &Panel { caption: caption.to_owned(), unit, is_growth, lines: lines.collect() })
    };
    let growth = curve.work_grows() && curve.points.first().is_some_and(|(x, _)| *x > 0.0);
    let seconds = growth
        .then(|| panel("Time; dashed: in proportion to the work", "s", true, |it| it.seconds()));
    let throughput =
        panel("Throughput, more is better", "GB/s", false, |it| it.gigabytes_per_second());
    let cpu = panel("CPU time per GB, less is better", "CPU-s/GB", false, |it| {
        it.cpu_seconds_per_gigabyte()
    });
    [seconds.flatten(), throughput, cpu].into_iter().flatten().collect()
}

fn draw(curve: &Curve<'_, '_>, panel: &Panel<'_>) -> Option<Plot> {
    let axes = axes(curve, panel)?;
    let label = format!("{} by {}", panel.caption, curve.name);
    let mut svg = Svg::new(WIDTH, HEIGHT, &label);
    draw_axes(&mut svg, &axes, curve, panel.unit);
    if panel.is_growth {
        proportional(&mut svg, &axes, panel);
    }
    // ringload last, so that nothing covers it.
    for line in panel.lines.iter().rev() {
        draw_line(&mut svg, &axes, line, curve, panel.unit);
    }
    Some(Plot { caption: panel.caption.clone(), svg: svg.finish() })
}

fn axes(curve: &Curve<'_, '_>, panel: &Panel<'_>) -> Option<Axes> {
    let spreads = || panel.lines.iter().flat_map(|line| &line.points).map(|(_, spread)| spread);
    let highest = spreads().map(|it| it.high).reduce(f64::max)?;
    let lowest = spreads().map(|it| it.low).filter(|it| *it > 0.0).reduce(f64::min);
    let bottom = HEIGHT - BOTTOM;
    let y = match lowest {
        Some(lowest) if panel.is_growth => {
            Scale::factors(Kind::Decades, lowest, highest, bottom, TOP)
        }
        _ => Scale::from_zero(highest, 5, bottom, TOP),
    };
    let ticks = y.ticks().iter().map(|it| text_width(&y.tick_text(*it))).fold(0.0, f64::max);
    // The unit stands upright at the very left.
    let left = ticks + FONT_PIXELS + 16.0;

    let xs = || panel.lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x);
    let (near, far) = (xs().reduce(f64::min)?, xs().reduce(f64::max)?);
    let is_wide = near > 0.0 && (far > WIDE * near || (panel.is_growth && far > near));
    let x = if is_wide {
        Scale::factors(Kind::Doublings, near, far, left, WIDTH - RIGHT)
    } else {
        let room = (far - near) * 0.05;
        Scale::linear(near - room, far + room, 6, left, WIDTH - RIGHT)
    };
    let widest = x.ticks().iter().map(|it| text_width(&place(curve, &x, *it))).fold(0.0, f64::max);
    // What is wide at the axis's end must not be cut off.
    let x = x.ending_at(WIDTH - (widest / 2.0).max(RIGHT));
    Some(Axes { x, y, bottom })
}

fn draw_axes(svg: &mut Svg, axes: &Axes, curve: &Curve<'_, '_>, unit: &str) {
    let Axes { x, y, bottom } = axes;
    let (left, right) = x.ends();
    for tick in y.ticks() {
        let at = y.at(tick);
        svg.line("grid", (left, at), (right, at));
        svg.text("tick end", (left - 6.0, at + FONT_PIXELS * 0.35), &y.tick_text(tick));
    }
    let mut free_from = 0.0;
    for tick in x.ticks() {
        let (at, text) = (x.at(tick), place(curve, x, tick));
        svg.line("axis", (at, *bottom), (at, bottom + 4.0));
        let half = text_width(&text) / 2.0;
        if at - half >= free_from {
            svg.text("tick middle", (at, bottom + 18.0), &text);
            free_from = at + half + 4.0;
        }
    }
    svg.line("axis", (left, *bottom), (right, *bottom));
    svg.upright_text("tick middle", (FONT_PIXELS, (TOP + bottom) / 2.0), unit);
    let is_bytes = bytes_of(&curve.unit.to_ascii_lowercase()).is_some();
    let name = match curve.unit {
        unit if is_bytes || unit.is_empty() || unit == curve.name => curve.name.to_owned(),
        unit => format!("{}, {unit}", curve.name),
    };
    svg.text("tick middle", ((left + right) / 2.0, bottom + 38.0), &name);
}

/// The label of a tick; bytes with a suitable unit.
fn place(curve: &Curve<'_, '_>, scale: &Scale, x: f64) -> String {
    match bytes_of(&curve.unit.to_ascii_lowercase()) {
        Some(unit) => bytes(x * unit),
        None => scale.tick_text(x),
    }
}

/// The number of bytes of a unit of bytes.
fn bytes_of(unit: &str) -> Option<f64> {
    let power = ["b", "kib", "mib", "gib", "tib"].iter().position(|name| *name == unit);
    let power = power.or((unit == "bytes").then_some(0))?;
    Some(1024_f64.powi(i32::try_from(power).ok()?))
}

/// The line of proportional growth through the last point of the first client.
fn proportional(svg: &mut Svg, axes: &Axes, panel: &Panel<'_>) {
    let Some(line) = panel.lines.first() else { return };
    let Some(((near, _), (far, at_far))) = line.points.first().zip(line.points.last()) else {
        return;
    };
    // Where it leaves the plot at the bottom it ends: a clamped end would lean it.
    let lowest = axes.y.figures().0;
    let from = near.max(far * lowest / at_far.median.max(f64::MIN_POSITIVE));
    if *far > 0.0 && from < *far {
        let at = |x: f64| (axes.x.at(x), axes.y.at(at_far.median * x / far));
        svg.line("proportion", at(from), at(*far));
    }
}

fn draw_line(svg: &mut Svg, axes: &Axes, line: &Line<'_>, curve: &Curve<'_, '_>, unit: &str) {
    let Style { class, is_dashed, .. } = &line.style;
    let at = |(x, spread): &(f64, Spread)| (axes.x.at(*x), axes.y.at(spread.median));
    let points: Vec<(f64, f64)> = line.points.iter().map(at).collect();
    let dashed = if *is_dashed { " dashed" } else { "" };
    let strong = if line.role == Role::Own { " strong" } else { "" };
    svg.polyline(&format!("line {class}{dashed}{strong}"), &points);
    for point in &line.points {
        let (x, spread) = point;
        let [high, low] = [spread.high, spread.low].map(|it| axes.y.at(it));
        if low - high >= 0.5 {
            let [x, low, high] = [axes.x.at(*x), low, high].map(pixels);
            svg.push(&format!(
                r#"<path class="line spread {class}" d="M{x} {low}V{high}M{x} {low}m-3 0h6M{x} {high}m-3 0h6"/>"#
            ));
        }
        let title = format!(
            "{} at {}: {} {unit}, from {} to {}",
            line.client,
            point_name(curve, *x),
            digits(spread.median),
            digits(spread.low),
            digits(spread.high)
        );
        svg.marker(&line.style, at(point), &title);
    }
}

/// The label of a point in tables: "64 MiB", "4 engines", "1 engine".
pub fn point_name(curve: &Curve<'_, '_>, x: f64) -> String {
    if let Some(unit) = bytes_of(&curve.unit.to_ascii_lowercase()) {
        return bytes(x * unit);
    }
    let one = curve.unit.strip_suffix('s').filter(|_| x == 1.0);
    format!("{} {}", trimmed(&digits(x)), one.unwrap_or(curve.unit))
}
