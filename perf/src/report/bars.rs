//! Horizontal bars: the clients of a case below each other, from zero.
//!
//! A bar ends at the median; a thin line goes from the lowest to the highest run. The value of a limit
//! continues as a dashed line through all bars, for comparison.

use crate::records::Role;
use crate::report::data::{Client, Measured, Spread};
use crate::report::palette::Palette;
use crate::report::scale::Scale;
use crate::report::svg::{FONT_PIXELS, Svg, fitted, pixels, text_width};
use crate::report::text::digits;

const WIDTH: f64 = 480.0;
const ROW: f64 = 26.0;
const BAR: f64 = 14.0;
const TOP: f64 = 6.0;
/// The height below the bars, for the numbers of the ticks and the unit.
const BOTTOM: f64 = 42.0;
/// The maximum width of names.
const NAMES: f64 = 212.0;

/// Smaller loads are shown by their time instead of their throughput.
const SMALL_BYTES: f64 = 256e6;

/// A plot and its caption.
pub struct Plot {
    pub caption: String,
    pub svg: String,
}

struct Bar<'a> {
    client: &'a Client<'a>,
    spread: Spread,
    /// An intermediate point, such as the first tensor.
    mark: Option<f64>,
}

/// The figure that a plot shows.
struct Panel {
    caption: &'static str,
    unit: &'static str,
    figure: fn(&Client<'_>) -> Option<Spread>,
    mark: fn(&Client<'_>) -> Option<Spread>,
}

const THROUGHPUT: Panel = Panel {
    caption: "Throughput, more is better",
    unit: "GB/s",
    figure: |client| client.gigabytes_per_second(),
    mark: |_| None,
};
const TIME: Panel = Panel {
    caption: "Time, less is better",
    unit: "s",
    figure: |client| client.seconds(),
    mark: |_| None,
};
const TENSORS: Panel = Panel {
    caption: "From process start to the first tensor (line) and the last",
    unit: "s",
    figure: |client| client.last_tensor_seconds(),
    mark: |client| client.first_tensor_seconds(),
};
const CPU: Panel = Panel {
    caption: "CPU time per GB, less is better",
    unit: "CPU-s/GB",
    figure: |client| client.cpu_seconds_per_gigabyte(),
    mark: |_| None,
};

/// The plots of a case; none if nothing was measured.
pub fn plots(case: &Measured<'_>, palette: &Palette<'_>) -> Vec<Plot> {
    let has_tensor_times = case.clients.iter().any(|it| it.last_tensor_seconds().is_some());
    let is_small = case.clients.iter().filter_map(Client::bytes).all(|it| it < SMALL_BYTES);
    let main = if has_tensor_times || is_small { TIME } else { THROUGHPUT };
    [main, TENSORS, CPU].into_iter().filter_map(|panel| plot(case, palette, &panel)).collect()
}

fn plot(case: &Measured<'_>, palette: &Palette<'_>, panel: &Panel) -> Option<Plot> {
    let bar = |client| {
        let mark = (panel.mark)(client).map(|it| it.median);
        Some(Bar { client, spread: (panel.figure)(client)?, mark })
    };
    let bars: Vec<Bar<'_>> = case.clients.iter().filter_map(bar).collect();
    let label = format!("{}: {}", case.title, panel.caption);
    let svg = draw(&bars, palette, &label, panel.unit)?;
    Some(Plot { caption: panel.caption.to_owned(), svg })
}

fn draw(bars: &[Bar<'_>], palette: &Palette<'_>, label: &str, unit: &str) -> Option<String> {
    let highest = bars.iter().map(|bar| bar.spread.high).reduce(f64::max)?;
    let names = bars.iter().map(name_width).fold(0.0, f64::max) + 8.0;
    let left = names.min(NAMES);
    let figures = bars.iter().map(|bar| text_width(&digits(bar.spread.median))).fold(0.0, f64::max);
    let right = WIDTH - (figures + 10.0).max(24.0);
    let bottom = TOP + ROW * bars.len() as f64;
    let scale = Scale::from_zero(highest, 5, left, right);

    let mut svg = Svg::new(WIDTH, bottom + BOTTOM, label);
    axis(&mut svg, &scale, unit, bottom);
    for (index, bar) in bars.iter().enumerate() {
        draw_bar(&mut svg, bar, palette, &scale, (left, TOP + ROW * index as f64), unit);
    }
    for bar in bars.iter().filter(|bar| bar.client.role == Role::Limit) {
        let x = scale.at(bar.spread.median);
        svg.line("limit-line", (x, TOP), (x, bottom));
    }
    // Last, so that no line goes through a figure.
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5) + FONT_PIXELS * 0.35;
        let x = scale.at(bar.spread.high) + 6.0;
        svg.text("figure", (x, y), &digits(bar.spread.median));
    }
    Some(svg.finish())
}

/// The style class of a client's name; ringload's is bold.
fn name_width(bar: &Bar<'_>) -> f64 {
    let bolder = if bar.client.role == Role::Own { 1.12 } else { 1.0 };
    text_width(bar.client.name) * bolder
}

fn axis(svg: &mut Svg, scale: &Scale, unit: &str, bottom: f64) {
    let ticks = scale.ticks();
    for tick in &ticks {
        let x = scale.at(*tick);
        svg.line("grid", (x, TOP), (x, bottom));
        svg.text("tick middle", (x, bottom + 16.0), &scale.tick_text(*tick));
    }
    let zero = scale.at(0.0);
    svg.line("axis", (zero, TOP), (zero, bottom));
    let middle = (zero + scale.at(f64::MAX)) / 2.0;
    svg.text("tick middle", (middle, bottom + 34.0), unit);
}

fn draw_bar(
    svg: &mut Svg,
    bar: &Bar<'_>,
    palette: &Palette<'_>,
    scale: &Scale,
    (left, top): (f64, f64),
    unit: &str,
) {
    let Bar { client, spread, mark } = bar;
    let class = palette.style(client.name).class;
    let (name, _) = fitted(client.name, left - 6.0);
    let middle = top + ROW / 2.0;
    let strong = if client.role == Role::Own { " strong" } else { "" };
    svg.text(&format!("end{strong}"), (left - 6.0, middle + FONT_PIXELS * 0.35), &name);

    let [low, median, high] = [spread.low, spread.median, spread.high].map(|it| scale.at(it));
    let title = format!(
        "{}: {} {unit}, from {} to {}",
        client.name,
        digits(spread.median),
        digits(spread.low),
        digits(spread.high)
    );
    let size = (median - left, BAR);
    svg.rectangle(&format!("bar fill {class}"), (left, middle - BAR / 2.0), size, &title);
    if let Some(mark) = mark {
        let x = scale.at(*mark);
        svg.line("notch", (x, middle - BAR / 2.0), (x, middle + BAR / 2.0));
    }
    if high - low >= 0.5 {
        let [low, high, middle] = [low, high, middle].map(pixels);
        svg.push(&format!(
            r#"<path class="whisker" d="M{low} {middle}H{high}M{low} {middle}m0 -4v8M{high} {middle}m0 -4v8"/>"#
        ));
    }
}
