//! Writes an SVG picture element by element; styles are classes of the page's style sheet.

use crate::report::palette::{Marker, Style};
use crate::report::text::escaped;

/// The font size in plots, as in the style sheet.
pub const FONT_PIXELS: f64 = 13.0;

pub struct Svg {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

impl Svg {
    /// `label` is for screen readers.
    pub fn new(width: f64, height: f64, label: &str) -> Self {
        Self { width, height, label: escaped(label), body: String::new() }
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(pixels);
        self.push(&format!(r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#));
    }

    /// An element with a tooltip.
    pub fn rectangle(&mut self, class: &str, at: (f64, f64), size: (f64, f64), title: &str) {
        let [x, y, width, height] = [at.0, at.1, size.0.max(0.0), size.1.max(0.0)].map(pixels);
        let title = escaped(title);
        self.push(&format!(
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"><title>{title}</title></rect>"#
        ));
    }

    pub fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let ([x, y], text) = ([at.0, at.1].map(pixels), escaped(text));
        self.push(&format!(r#"<text class="{class}" x="{x}" y="{y}">{text}</text>"#));
    }

    /// From bottom to top.
    pub fn upright_text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let ([x, y], text) = ([at.0, at.1].map(pixels), escaped(text));
        self.push(&format!(
            r#"<text class="{class}" transform="translate({x} {y}) rotate(-90)">{text}</text>"#
        ));
    }

    /// Straight from point to point.
    pub fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> =
            points.iter().map(|(x, y)| format!("{},{}", pixels(*x), pixels(*y))).collect();
        self.push(&format!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    /// A point of a line.
    pub fn marker(&mut self, style: &Style, at: (f64, f64), title: &str) {
        let path = marker_path(style.marker, at);
        let (class, title) = (&style.class, escaped(title));
        self.push(&format!(
            r#"<path class="marker fill {class}" d="{path}"><title>{title}</title></path>"#
        ));
    }

    /// Finished elements.
    pub fn push(&mut self, elements: &str) {
        self.body.push_str(elements);
        self.body.push('\n');
    }

    pub fn finish(self) -> String {
        let Self { width, height, label, body } = self;
        let [width, height] = [width, height].map(pixels);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{label}">
{body}</svg>
"#
        )
    }
}

/// A coordinate, to a tenth.
pub fn pixels(figure: f64) -> String {
    if !figure.is_finite() {
        return "0".to_owned();
    }
    let text = format!("{figure:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The approximate width of a text, in the widest font of the style sheet.
pub fn text_width(text: &str) -> f64 {
    let ems = |character: char| match character {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | ' ' => 0.32,
        'f' | 'r' | 't' | '(' | ')' | '/' | '-' => 0.41,
        'c' | 's' | 'v' | 'x' | 'y' | 'z' | 'k' => 0.57,
        'm' | 'M' | 'W' | '%' | '@' => 1.0,
        'w' | '<' | '>' | '=' | '+' | '&' => 0.84,
        'A'..='Z' => 0.71,
        ' '..='~' => 0.635,
        _ => 1.0,
    };
    text.chars().map(ems).sum::<f64>() * FONT_PIXELS
}

/// The part of a text that fits, and whether that is all of it.
pub fn fitted(text: &str, width: f64) -> (String, bool) {
    if text_width(text) <= width {
        return (text.to_owned(), true);
    }
    let mut fitted = text.to_owned();
    while !fitted.is_empty() && text_width(&fitted) + FONT_PIXELS > width {
        fitted.pop();
    }
    (format!("{}\u{2026}", fitted.trim_end()), false)
}

/// A line with its marker, for a legend.
pub fn swatch(style: &Style) -> String {
    let Style { class, is_dashed, marker } = style;
    let dashes = if *is_dashed { " dashed" } else { "" };
    let path = marker_path(*marker, (15.0, 7.0));
    format!(
        r#"<svg class="swatch" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 14" width="30" height="14" aria-hidden="true"><line class="line {class}{dashes}" x1="1" y1="7" x2="29" y2="7"/><path class="marker fill {class}" d="{path}"/></svg>"#
    )
}

fn marker_path(marker: Marker, (x, y): (f64, f64)) -> String {
    let at = format!("M{} {}", pixels(x), pixels(y));
    let shape = match marker {
        Marker::Circle => "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        Marker::Square => "m-3.5 -3.5h7v7h-7z",
        Marker::Triangle => "m0 -4.5l4.5 8h-9z",
        Marker::Diamond => "m0 -5l4.5 5l-4.5 5l-4.5 -5z",
        Marker::Cross => "m-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    };
    format!("{at}{shape}")
}
