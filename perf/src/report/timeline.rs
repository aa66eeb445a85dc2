//! The timeline of a load: a lane for each engine and slot, coloured by activity.
//!
//! Lanes are drawn in bins of half a pixel, each with the colour of its most frequent activity.
//! Adjacent bins of one colour are one stroke, so that a trace of any length gives a small picture.

use crate::report::scale::Scale;
use crate::report::svg::{FONT_PIXELS, Svg, fitted, pixels, text_width};
use crate::report::text::{digits, percent};
use crate::report::trace::{Kind, Lane, Span, Timeline};

const WIDTH: f64 = 1000.0;
const RIGHT: f64 = 30.0;
const LANE: f64 = 13.0;
/// The distance between the tops of lanes.
const PITCH: f64 = 16.0;
const GAP: f64 = 8.0;
const BIN: f64 = 0.5;

/// The number of lanes that are drawn; the others are merged into one.
const MOST_SLOTS: usize = 48;
const MOST_ENGINES: usize = 16;
/// The number of events that are labelled.
const MOST_INSTANTS: usize = 24;
const INSTANT_ROWS: usize = 4;
const INSTANT_ROW: f64 = 16.0;

struct Canvas {
    svg: Svg,
    scale: Scale,
    left: f64,
    /// The position of the next lane.
    top: f64,
}

/// The picture; `None` for an empty trace.
pub fn draw(timeline: &Timeline, label: &str) -> Option<String> {
    let slots = folded(&timeline.slots, MOST_SLOTS, "slots");
    let engines = folded(&timeline.engines, MOST_ENGINES, "engines");
    let groups = [&timeline.load, &engines.0, &slots.0];
    let lanes: usize = groups.iter().map(|lanes| lanes.len()).sum();
    if lanes == 0 {
        return None;
    }
    let names = groups.iter().flat_map(|lanes| lanes.iter()).map(|lane| text_width(&lane.name));
    let left = (names.fold(0.0, f64::max) + 10.0).min(160.0);
    let scale = Scale::linear(0.0, timeline.milliseconds, 10, left, WIDTH - RIGHT);
    let instants = instants(timeline, &scale);
    let rows = instants.iter().map(|it| it.row + 1).max().unwrap_or(0);
    let top = 4.0 + INSTANT_ROW * rows as f64;
    let gaps = groups.iter().filter(|lanes| !lanes.is_empty()).count() as f64;
    let bottom = top + PITCH * lanes as f64 + GAP * gaps;
    let svg = Svg::new(WIDTH, bottom + 42.0, label);

    let mut canvas = Canvas { svg, scale, left, top };
    canvas.axis(bottom);
    canvas.lanes(&timeline.load, 1);
    canvas.lanes(&engines.0, engines.1);
    canvas.lanes(&slots.0, slots.1);
    for instant in &instants {
        canvas.instant(instant, bottom);
    }
    Some(canvas.svg.finish())
}

/// The figures of the picture.
pub fn sentence(timeline: &Timeline) -> String {
    let shares = [Kind::Reading, Kind::Copying, Kind::Held].map(|it| timeline.slots_share(it));
    let idle = (1.0 - shares.iter().sum::<f64>()).max(0.0);
    let [reading, copying, held] = shares.map(percent);
    let mut line = format!(
        "{} ms; of the time of {} slots {reading} was reading, {copying} copying, {held} held, {} idle.",
        digits(timeline.milliseconds),
        timeline.slots.len(),
        percent(idle)
    );
    for (lanes, most, what) in
        [(&timeline.slots, MOST_SLOTS, "slots"), (&timeline.engines, MOST_ENGINES, "engines")]
    {
        if lanes.len() > most {
            let more = lanes.len() - most;
            line.push_str(&format!(
                " {more} more {what} are folded into the last lane, which shows what most of them did."
            ));
        }
    }
    if timeline.instants.len() > MOST_INSTANTS {
        let more = timeline.instants.len() - MOST_INSTANTS;
        line.push_str(&format!(" {more} more moments are not marked."));
    }
    line
}

/// The lanes that are drawn, and how many lanes the last of them represents.
fn folded(lanes: &[Lane], most: usize, what: &str) -> (Vec<Lane>, usize) {
    let (drawn, rest) = lanes.split_at(lanes.len().min(most));
    let mut drawn = drawn.to_vec();
    if rest.is_empty() {
        return (drawn, 1);
    }
    let mut spans: Vec<Span> = rest.iter().flat_map(|lane| lane.spans.clone()).collect();
    spans.sort_by(|span, other| span.start.total_cmp(&other.start));
    drawn.push(Lane { name: format!("{} more {what}", rest.len()), spans });
    (drawn, rest.len())
}

/// An event that is marked.
struct Instant {
    x: f64,
    /// Empty if there is no space for the label.
    name: String,
    /// Whether the label is to the left of the line, near the right end.
    is_left: bool,
    row: usize,
}

/// The events and the rows of their labels, which do not overlap.
fn instants(timeline: &Timeline, scale: &Scale) -> Vec<Instant> {
    let mut free_from = [0.0_f64; INSTANT_ROWS];
    let place = |(at, name): &(f64, String)| {
        let (x, width) = (scale.at(*at), text_width(name) + 8.0);
        let is_left = x + width > WIDTH;
        let (from, to) = if is_left { (x - width, x + 4.0) } else { (x, x + width) };
        let row = free_from.iter().position(|free| *free <= from);
        if let Some(row) = row {
            free_from[row] = to;
        }
        let name = if row.is_some() { name.clone() } else { String::new() };
        Instant { x, name, is_left, row: row.unwrap_or(0) }
    };
    timeline.instants.iter().take(MOST_INSTANTS).map(place).collect()
}

impl Canvas {
    fn axis(&mut self, bottom: f64) {
        let right = WIDTH - RIGHT;
        for tick in self.scale.ticks() {
            let x = self.scale.at(tick);
            self.svg.line("grid", (x, self.top), (x, bottom));
            self.svg.text("tick middle", (x, bottom + 17.0), &self.scale.tick_text(tick));
        }
        self.svg.line("axis", (self.left, bottom), (right, bottom));
        self.svg.text("tick middle", ((self.left + right) / 2.0, bottom + 36.0), "ms");
    }

    fn instant(&mut self, instant: &Instant, bottom: f64) {
        let (x, y) = (instant.x, 4.0 + INSTANT_ROW * instant.row as f64);
        self.svg.line("instant", (x, y), (x, bottom));
        if !instant.name.is_empty() {
            let (class, x) =
                if instant.is_left { ("figure end", x - 4.0) } else { ("figure", x + 4.0) };
            self.svg.text(class, (x, y + FONT_PIXELS * 0.85), &instant.name);
        }
    }

    /// Draws a group of lanes; the last represents `last` lanes.
    fn lanes(&mut self, lanes: &[Lane], last: usize) {
        if lanes.is_empty() {
            return;
        }
        for (index, lane) in lanes.iter().enumerate() {
            self.lane(lane, if index + 1 == lanes.len() { last } else { 1 });
        }
        self.top += GAP;
    }

    /// Draws a lane that represents `count` lanes.
    fn lane(&mut self, lane: &Lane, count: usize) {
        let middle = self.top + LANE / 2.0;
        let right = WIDTH - RIGHT;
        let (name, _) = fitted(&lane.name, self.left - 6.0);
        self.svg.text("tick end", (self.left - 6.0, middle + FONT_PIXELS * 0.35), &name);
        let size = (right - self.left, LANE);
        self.svg.rectangle("lane", (self.left, self.top), size, &lane.name);
        let bins = Bins::of(lane, &self.scale, self.left, right);
        let (x, y) = (pixels(self.left), pixels(middle));
        for (kind, path) in bins.paths(count) {
            self.svg.push(&format!(
                r#"<path class="span {}" stroke-width="{LANE}" transform="translate({x} {y}) scale({BIN} 1)" d="{path}"/>"#,
                kind.class()
            ));
        }
        for span in lane.spans.iter().filter(|span| span.kind == Kind::Event) {
            let [from, to] = [span.start, span.end].map(|it| self.scale.at(it));
            if text_width(&span.name) + 8.0 <= to - from {
                let at = (from + 4.0, middle + FONT_PIXELS * 0.32);
                self.svg.text("within", at, &span.name);
            }
        }
        self.top += PITCH;
    }
}

/// The share of each kind in each bin of a lane.
struct Bins(Vec<[f64; Kind::ALL.len()]>);

impl Bins {
    fn of(lane: &Lane, scale: &Scale, left: f64, right: f64) -> Self {
        let count = ((right - left) / BIN).ceil().max(1.0) as usize;
        let mut bins = vec![[0.0; Kind::ALL.len()]; count];
        for span in &lane.spans {
            let [from, to] = [span.start, span.end].map(|it| (scale.at(it) - left) / BIN);
            // What has no length at all is still seen.
            let to = to.max(from + 1e-3);
            let last = (to.ceil() as usize).min(count);
            for (index, bin) in bins.iter_mut().enumerate().take(last).skip(from as usize) {
                let within = to.min(index as f64 + 1.0) - from.max(index as f64);
                bin[span.kind as usize] += within.max(0.0);
            }
        }
        Self(bins)
    }

    /// A path for each kind, in units of bins. If a lane represents many, bins in which most of them
    /// were idle stay empty; otherwise even the shortest span is visible.
    fn paths(&self, lanes: usize) -> Vec<(Kind, String)> {
        let least = if lanes > 1 { lanes as f64 / 2.0 } else { 0.0 };
        let kinds: Vec<Option<Kind>> = self.0.iter().map(|bin| winner(bin, least)).collect();
        let path = |kind| (kind, strokes(&kinds, kind));
        Kind::ALL.into_iter().map(path).filter(|(_, path)| !path.is_empty()).collect()
    }
}

/// The most frequent kind of a bin.
fn winner(bin: &[f64; Kind::ALL.len()], least: f64) -> Option<Kind> {
    let sum: f64 = bin.iter().sum();
    let busy = sum > 0.0 && sum >= least;
    let (index, _) = bin.iter().enumerate().max_by(|(_, it), (_, other)| it.total_cmp(other))?;
    busy.then(|| Kind::ALL[index])
}

/// Every run of bins of a kind: "m" from the end of the last run, "h" for its length.
fn strokes(kinds: &[Option<Kind>], kind: Kind) -> String {
    let mut path = String::new();
    let (mut index, mut pen) = (0, 0);
    for run in kinds.chunk_by(|bin, next| bin == next) {
        if run.first() == Some(&Some(kind)) {
            let command = if path.is_empty() { "M" } else { "m" };
            path.push_str(&format!("{command}{} 0h{}", index - pen, run.len()));
            pen = index + run.len();
        }
        index += run.len();
    }
    path
}
